"""What is known of models, from the headers of their files: all packaged ones as a table, and one with its card."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from safetensors import safe_open

from ase_andersonn.checkpoints.migrations import MODEL_KEYS_1, renamed
from ase_andersonn.pretrained.catalog import (
    CLASSIFIERS,
    DEFAULT_MODEL,
    model_files,
    packaged_classifiers,
    packaged_models,
    read_header,
)
from ase_andersonn.properties import RESULTS

Facts = Mapping[str, Any]
ELSEWHERE = ("limits", "training", "validation", "pairs")
"""Of a card what has a line of its own, and what only the file beside the weights holds: the training's settings, and
which pairs of elements were neighbours."""


def packaged() -> list[Facts]:
    """What `model_facts` says of each packaged model, potentials first."""
    return [model_facts(name) for name in (*packaged_models(), *packaged_classifiers())]


def model_facts(name: str) -> Facts:
    """What the header of a model's file says. No weights are read.

    Args:
        name: name or path of a potential, or name of a packaged classifier.

    Returns:
        name, architecture, number of members (of an ensemble what follows is the first one's), labels of a classifier
        or elements of a potential, cutoff and how far an atom sees before the equilibrium (Å; None where there is
        none), number of parameters, limits, config, card, and the file with all of it.

    Raises:
        FileNotFoundError: if there is no such model.
        ValueError: for a damaged header.
    """
    files = model_files(name, CLASSIFIERS) if name in packaged_classifiers() else model_files(name)
    header = read_header(files[0])
    from ase.data import chemical_symbols

    config, card = renamed(json.loads(header["config"]), MODEL_KEYS_1), json.loads(header["card"])
    labels, cutoff = config.get("labels"), config.get("cutoff")
    return {
        "name": name,
        "architecture": header["architecture"],
        "members": len(files),
        "labels": labels["labels"] if labels else None,
        "elements": None if labels else [chemical_symbols[z] for z in config.get("elements") or ()],
        "cutoff": None if labels else cutoff,
        "receptive_field": None if labels or cutoff is None else cutoff * (2 if config.get("n_message") else 1),
        "parameters": card.get("parameters") or _n_numbers(files[0]),
        "limits": card.get("limits", ["not stated"]),
        "config": config,
        "card": card,
        "file": str(files[0].with_suffix(".json")),
    }


def _n_numbers(path: Path) -> int:
    with safe_open(path, framework="np") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 (no mapping)


def model_table(facts: Sequence[Facts]) -> str:
    """A few lines for each model."""
    titles = {False: f"Potentials, AndersoNN(name); without a name {DEFAULT_MODEL}"}
    titles[True] = "Classifiers, StructureClassifier(name)"
    parts = []
    for of_labels, title in titles.items():
        parts += [title, *(_entry(each) for each in facts if (each["labels"] is not None) == of_labels)]
    return "\n\n".join(parts)


def model_text(facts: Facts) -> str:
    """What a model is: elements or labels, size, limits, config, and the rest of its card."""
    lines = {"architecture": facts["architecture"]}
    if facts["members"] > 1:
        lines["members"] = f"{facts['members']}; what follows is the first one's"
    lines |= _of_what(facts)
    if facts["cutoff"] is not None:
        lines["cutoff"] = f"{facts['cutoff']} Å; receptive field before the equilibrium {facts['receptive_field']} Å"
    lines["parameters"] = str(facts["parameters"])
    lines["limits"] = "\n".join(facts["limits"])
    lines["config"] = json.dumps(facts["config"])
    if facts["labels"] is None:
        lines["results"] = "\n".join(f"{entry}: {entry.meaning}" for entry in RESULTS)
    card = {key: value for key, value in facts["card"].items() if key not in ELSEWHERE}
    lines["card"] = yaml.safe_dump(card, default_flow_style=None, allow_unicode=True, width=100).rstrip()
    lines["all of it"] = facts["file"]
    return "\n".join(f"{key:<14}" + text.replace("\n", "\n" + 14 * " ") for key, text in lines.items())


def _of_what(facts: Facts) -> dict[str, str]:
    if facts["labels"] is not None:
        return {"labels": ", ".join(facts["labels"])}
    from ase.data import atomic_numbers

    from ase_andersonn.structures.elements import element_names

    return {"elements": element_names(atomic_numbers[one] for one in facts["elements"]) or "any"}


def _entry(facts: Facts) -> str:
    card, test = facts["card"], facts["card"].get("test", {})
    lines = [f"{facts['name']}: {card.get('summary', '')}", *(f"{k:<10}{v}" for k, v in _of_what(facts).items())]
    lines += [f"method    {card.get('method', '')}"]
    if facts["members"] > 1:
        return "\n  ".join([*lines, f"members   {facts['members']}"])
    if facts["labels"] is None:
        lines += [f"error     {key}: {_error(found)}" for key, found in test.items()]
    else:
        accuracies = {key: (found["accuracy"], found["balanced_accuracy"]) for key, found in test.items()}
        lines += [f"test      {key}: accuracy {a:.3f}, balanced {b:.3f}" for key, (a, b) in accuracies.items()]
    return "\n  ".join(lines)


def _error(found: Mapping[str, Any]) -> str:
    """Test errors in words: the mean absolute errors of energy and forces where they are there, else all there is."""
    if "forces_mae_meV_per_A" not in found:
        return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in found.items())
    energy, forces = found["energy_mae_meV_per_atom"], found["forces_mae_meV_per_A"]
    return f"{energy:.2f} meV/atom, {forces:.1f} meV/Å (mean absolute, {found['test_frames']} test frames)"
