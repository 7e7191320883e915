"""The packaged potentials and classifiers as a table: what each knows, at which level of theory, and how well."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ase.data import chemical_symbols

from ase_andersonn.models.files import (
    CLASSIFIERS,
    DEFAULT_MODEL,
    model_files,
    packaged_classifiers,
    packaged_models,
    read_header,
)


def model_table() -> str:
    """A few lines for each packaged model, potentials first."""
    potentials = [_potential(name) for name in packaged_models()]
    classifiers = [_classifier(name) for name in packaged_classifiers()]
    return "\n\n".join([f"Potentials, AndersoNN(name); without a name {DEFAULT_MODEL}", *potentials]) + (
        "\n\n" + "\n\n".join(["Classifiers, StructureClassifier(name)", *classifiers])
    )


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
