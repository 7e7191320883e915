"""Files of earlier formats in the terms of the present one.

Format 2 has the same numbers as format 1 under other names. A file is migrated after its hash was checked; old keys of
configs are read on by `config.from_dict`, see `RENAMED` there.
"""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from ase_andersonn.pretrained.catalog import FORMATS

V = TypeVar("V")

POTENTIAL_1 = {
    "closest": "min_distance",
    "densest": "max_density",
    "farthest": "environment_max",
    "hearing": "message_density",
    "inject": "injection",
    "inject_heard": "message_inject",
    "length": "tensor_rms",
    "seen_tensors": "readout_tensors",
    "spread": "feature_std",
    "spread_heard": "message_std",
    "spread_products": "product_std",
    "telling": "message",
    "typical": "feature_mean",
    "typical_heard": "message_mean",
    "typical_products": "product_mean",
    "usual": "environment_mean",
    "whiten": "environment_whitening",
}
"""Modules and buffers of the DEQ potentials in format 1, and now."""
CLASSIFIER_1 = {"describe": "element_network", "seen": "standardize", "voids": "pores"}
"""The same of the classifiers, whose `….spread` is `….std` now."""
CARD_1 = {"lone": "isolated", "smallest": "min_atoms"}
"""Keys of model cards."""
CARTESIAN_KEYS = ("rank", "n_tensors", "n_products", "correlation")
"""Keys of the config of a `DEQCartesian` that a `DEQAttention` does not have."""
MODEL_KEYS_1 = {"n_told": "n_message", "voids": "pores"}
"""Keys of model configs."""


def tensor_name(architecture: str, name: str) -> str:
    """The present name of a model's tensor of format 1."""
    first, *rest = name.split(".")
    if architecture.startswith("DEQ"):
        first = POTENTIAL_1.get(first, first)
    elif architecture.endswith("Classifier"):
        first = CLASSIFIER_1.get(first, first)
        rest = [*rest[:-1], "std"] if rest[-1:] == ["spread"] else rest
    return ".".join([first, *rest])


def renamed(data: Mapping[str, V], names: Mapping[str, str]) -> dict[str, V]:
    """A mapping whose keys are replaced where `names` has them."""
    return {names.get(key, key): value for key, value in data.items()}


def migrate_tensors(file_format: str, architecture: str, tensors: Mapping[str, V]) -> dict[str, V]:
    """The tensors of a model file under their present names."""
    if file_format != FORMATS[0]:
        return dict(tensors)
    return {tensor_name(architecture, name): tensor for name, tensor in tensors.items()}


def migrate_architecture(header: Mapping[str, str], config: Mapping[str, Any]) -> dict[str, str]:
    """The header of a model file; a `DEQCartesian` of rank 0, as was possible once, is a `DEQAttention`."""
    if header.get("architecture") != "DEQCartesian" or config.get("rank") != 0:
        return dict(header)
    own = {key: value for key, value in config.items() if key not in CARTESIAN_KEYS}
    return {**header, "architecture": "DEQAttention", "config": json.dumps({"n_bispectrum": 0, "n_message": 0, **own})}


def migrate_card(file_format: str, card: Mapping[str, Any]) -> dict[str, Any]:
    """A model card with the present keys."""
    return renamed(card, CARD_1) if file_format == FORMATS[0] else dict(card)


def migrate_run_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a training run with the present keys of its model."""
    model = config.get("model")
    return {**config, "model": renamed(model, MODEL_KEYS_1)} if isinstance(model, Mapping) else dict(config)


def migrate_run(tensors: Mapping[str, V], state: Mapping[str, Any]) -> tuple[dict[str, V], dict[str, Any]]:
    """Tensors and state of a training run's checkpoint in present terms; those before format 2 name no format."""
    if "format" in state:
        return dict(tensors), dict(state)
    architecture = str(state.get("config", {}).get("architecture", ""))
    state = dict(state)
    if "sizes" in state:
        state["sizes"] = renamed(state["sizes"], MODEL_KEYS_1)
    if "config" in state:
        state = {"format": FORMATS[-1], **state, "config": migrate_run_config(state["config"])}

    def name(key: str) -> str:
        kind, _, rest = key.partition("/")
        if kind == "optimizer":
            moment, _, rest = rest.partition("/")
            return f"{kind}/{moment}/{tensor_name(architecture, rest)}"
        return f"{kind}/{tensor_name(architecture, rest)}" if kind in ("model", "average", "learnt") else key

    return {name(key): tensor for key, tensor in tensors.items()}, state
