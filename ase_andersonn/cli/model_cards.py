"""What is known of models: all packaged ones as a table, and one with its card."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ase.data import chemical_symbols

from ase_andersonn.checkpoints.checkpoint import load_classifier, load_model
from ase_andersonn.config import to_dict
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.potentials.committee import Committee
from ase_andersonn.pretrained.catalog import (
    CLASSIFIERS,
    DEFAULT_MODEL,
    model_files,
    packaged_classifiers,
    packaged_models,
    read_header,
)
from ase_andersonn.properties import RESULTS

ELSEWHERE = ("limits", "training", "validation", "pairs")
"""Of a card what has a line of its own, and what only the file beside the weights holds: the training's settings, and
which pairs of elements were neighbours."""


def model_table() -> str:
    """A few lines for each packaged model, potentials first."""
    potentials = [_potential(name) for name in packaged_models()]
    classifiers = [_classifier(name) for name in packaged_classifiers()]
    return "\n\n".join([f"Potentials, AndersoNN(name); without a name {DEFAULT_MODEL}", *potentials]) + (
        "\n\n" + "\n\n".join(["Classifiers, StructureClassifier(name)", *classifiers])
    )


def model_text(name: str) -> str:
    """What a model is: elements or labels, size, limits, config, and the rest of its card.

    Args:
        name: name or path of a potential, or name of a packaged classifier.

    Raises:
        FileNotFoundError: if there is no such model.
        ValueError: for a damaged one.
    """
    classifiers = model_files(name, CLASSIFIERS) if name in packaged_classifiers() else []
    found: Any = load_classifier(classifiers[0]) if classifiers else load_model(name)
    members = len(classifiers) or 1
    if isinstance(found, Committee):
        members, found = len(found.members), found.members[0]
    lines = {"architecture": type(found).__name__}
    if members > 1:
        lines["members"] = f"{members}; what follows is the first one's"
    if classifiers:
        lines["labels"] = ", ".join(found.labels.labels)
    else:
        lines["elements"] = ", ".join(chemical_symbols[z] for z in found.elements) or "any"
    if isinstance(found, EnergyModel):
        lines["cutoff"] = f"{found.cutoff} Å; receptive field before the equilibrium {found.receptive_field} Å"
    lines["parameters"] = str(sum(p.numel() for p in found.parameters()))
    lines["limits"] = "\n".join(found.card.get("limits", ["not stated"]))
    lines["config"] = json.dumps(to_dict(found.config))
    if not classifiers:
        lines["results"] = "\n".join(f"{entry}: {entry.meaning}" for entry in RESULTS)
    card = {key: value for key, value in found.card.items() if key not in ELSEWHERE}
    lines["card"] = yaml.safe_dump(card, default_flow_style=None, allow_unicode=True, width=100).rstrip()
    lines["all of it"] = str((classifiers or model_files(name))[0].with_suffix(".json"))
    return "\n".join(f"{key:<14}" + text.replace("\n", "\n" + 14 * " ") for key, text in lines.items())


def _potential(name: str) -> str:
    config, card = _read(model_files(name)[0])
    elements = ", ".join(chemical_symbols[z] for z in config.get("elements") or ()) or "any"
    lines = [f"{name}: {card.get('summary', '')}", f"elements  {elements}"]
    lines += [f"method    {card.get('method', '')}"]
    lines += [f"error     {key}: {_error(found)}" for key, found in card.get("test", {}).items()]
    return "\n  ".join(lines)


def _classifier(name: str) -> str:
    files = model_files(name, CLASSIFIERS)
    config, card = _read(files[0])
    lines = [f"{name}: {card.get('summary', '')}", f"labels    {', '.join(config['labels']['labels'])}"]
    lines += [f"method    {card.get('method', '')}"]
    if len(files) > 1:
        lines += [f"members   {len(files)}"]
    for key, found in card.get("test", {}).items() if len(files) == 1 else ():
        lines += [f"test      {key}: accuracy {found['accuracy']:.3f}, balanced {found['balanced_accuracy']:.3f}"]
    return "\n  ".join(lines)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Config and card of a model file."""
    header = read_header(path)
    return json.loads(header["config"]), json.loads(header["card"])


def _error(found: Mapping[str, Any]) -> str:
    """Test errors in words: the mean absolute errors of energy and forces where they are there, else all there is."""
    if "forces_mae_meV_per_A" not in found:
        return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in found.items())
    energy, forces = found["energy_mae_meV_per_atom"], found["forces_mae_meV_per_A"]
    return f"{energy:.2f} meV/atom, {forces:.1f} meV/Å (mean absolute, {found['test_frames']} test frames)"
