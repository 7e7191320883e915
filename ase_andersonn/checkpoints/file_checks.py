"""What a model file may hold, looked at before anything of the sizes that it names is allocated.

The hash of a file says that it is as it was written, not who wrote it. So its config is read against its types, its
integers are held against the numbers that the file holds, and names, shapes and types of its tensors are compared with
those of the model of that config, see `bounded.shapes_of`.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import Tensor

from ase_andersonn.config import from_dict, to_dict

from .bounded import shapes_of
from .migrations import migrate_card

DTYPES = ("F64", "F32", "I64", "I32", "I16", "I8", "U8", "BOOL")
"""Types of tensors, as safetensors names them."""
LIMITS: dict[str, tuple[float, float]] = {
    "cutoff": (0.0, 50.0),
    "spacing": (0.01, 50.0),
    "origins": (1, 32),
    "window": (1, 1000),
    "max_steps": (1, 100_000),
}
"""Of a config, what no tensor has the size of: smallest and largest value, lengths in Å."""
FEW = 1000
"""Integers of a config up to this are taken as they are, also where the file holds fewer numbers."""
ANEW = "Copy or create it again."


def read_json(path: Path, header: Mapping[str, str], key: str) -> Any:
    """An entry of the header.

    Raises:
        ValueError: if it is not there, or no JSON object.
    """
    if key not in header:
        raise ValueError(f"{path} has no {key} in its header. {ANEW}")
    try:
        found = json.loads(header[key])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the {key} of {path} is not valid JSON: {error}. {ANEW}") from error
    if not isinstance(found, dict):
        raise ValueError(f"the {key} of {path} is a {type(found).__name__}; it has to be a JSON object. {ANEW}")
    return found


def read_card(path: Path, header: Mapping[str, str]) -> dict[str, Any]:
    """The model card.

    Raises:
        ValueError: where what the package reads of it is of another type than it writes.
    """
    card = migrate_card(header["format"], read_json(path, header, "card"))
    for key, (fits, words) in CARD.items():
        if key in card and not fits(card[key]):
            raise ValueError(f"{key} in the card of {path} is {str(card[key])[:80]!r}; it has to be {words}. {ANEW}")
    return card


def read_model_config(path: Path, header: Mapping[str, str], cls: type[Any], tensors: Mapping[str, Tensor]) -> Any:
    """The config of a model of class `cls`, whose sizes the file's tensors may have.

    Raises:
        ValueError: where it makes no model, and for numbers that no model with so few weights has.
    """
    data = read_json(path, header, "config")
    n_values = sum(tensor.numel() for tensor in tensors.values())
    _check_numbers(path, "config", data, max(n_values, FEW))
    if isinstance(data.get("n_layers"), int) and data["n_layers"] > len(tensors):
        raise ValueError(f"the config of {path} says n_layers = {data['n_layers']}, the file holds {len(tensors)}.")
    try:
        config = from_dict(get_type_hints(cls.__init__)["config"], data)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"the config of {path} makes no model: {error} {ANEW}") from error
    for name, value in to_dict(config).items():
        low, high = LIMITS.get(name, (-math.inf, math.inf))
        if name in LIMITS and not low <= value <= high:
            raise ValueError(f"the config of {path} says {name} = {value}; it has to be in {low:g} to {high:g}. {ANEW}")
    return config


def check_tensors(path: Path, make: Callable[[], Any], tensors: Mapping[str, Tensor]) -> None:
    """Compare the tensors of a file with those of its model, of which none that is large is allocated.

    Args:
        path: the file.
        make: makes the model.
        tensors: by name.

    Raises:
        ValueError: for missing and unknown tensors, other shapes or types, and values that are not finite.
    """
    try:
        model = shapes_of(make, sum(tensor.numel() for tensor in tensors.values()))
        wanted: dict[str, Tensor] = model.state_dict()
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"the config of {path} makes no model: {error} {ANEW}") from error
    groups: tuple[tuple[str, ...], ...] = getattr(model, "optional_tensors", ())
    optional = {name for group in groups for name in group}
    wrong = [f"{name} is missing" for name in wanted if name not in optional and name not in tensors]
    for group in groups:
        held = [name for name in group if name in tensors]
        if held and len(held) < len(group):
            lacking = ", ".join(name for name in group if name not in tensors)
            wrong.append(f"it holds {', '.join(held)} without {lacking}, which belong together")
    wrong += [f"{name} is unknown" for name in tensors if name not in wanted]
    for name, tensor in tensors.items():
        like = wanted.get(name, tensor)
        if tensor.shape != like.shape:
            wrong.append(f"{name} has the shape {tuple(tensor.shape)} instead of {tuple(like.shape)}")
        elif tensor.dtype != like.dtype and not (tensor.is_floating_point() and like.is_floating_point()):
            wrong.append(f"{name} is {tensor.dtype} instead of {like.dtype}")
    if wrong:
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError(
            f"{path} does not hold the weights of its config, or was written by another version of this package: "
            f"{'; '.join(wrong[:5])}{more}. Train it anew."
        )
    broken = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise ValueError(
            f"{path} holds weights that are not finite (nan or inf), in {', '.join(broken[:5])}: its training "
            "diverged, or the file is damaged. Take an earlier checkpoint, or train it anew."
        )


def _check_numbers(path: Path, where: str, value: Any, most: int) -> None:
    """Raise ValueError for numbers that are not finite, and integers larger than `most`."""
    if isinstance(value, dict):
        for key, entry in value.items():
            _check_numbers(path, f"{where}.{key}", entry, most)
    elif isinstance(value, list):
        for entry in value:
            _check_numbers(path, where, entry, most)
    elif isinstance(value, int) and abs(value) > most:
        raise ValueError(
            f"{path} says {where} = {str(value)[:30]}, more than all the numbers that it holds ({most}): its weights "
            f"are not those of its config. {ANEW}"
        )
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{path} says {where} = {value}; it has to be finite. {ANEW}")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_int, value))


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


def _is(kind: type[Any]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


CARD: dict[str, tuple[Callable[[Any], bool], str]] = {
    "combinations": (_list_of(_list_of(_is_int)), "a list of lists of atomic numbers"),
    "pairs": (_list_of(_is_pair), "a list of pairs of atomic numbers"),
    "min_atoms": (_is_int, "a number of atoms"),
    "periodic": (_list_of(_is(bool)), "a list of true and false"),
    "odd_electrons": (_is(bool), "true or false"),
    "label_cutoff": (lambda value: isinstance(value, float), "a length in Å"),
    "isolated": (_list_of(_is_int), "a list of atomic numbers"),
    "limits": (_list_of(_is(str)), "a list of sentences"),
}
"""What the package reads of a card: whether a value fits, and how it should be."""
