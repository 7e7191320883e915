"""Models as files: safetensors for the weights, with the config and the model card in its header as JSON.

A hash over weights, config and card is checked on loading, so a truncated or altered file is refused. A copy of the
card is written beside the weights for people to read. Nothing is unpickled.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from ase_andersonn.atomic_write import atomic_write
from ase_andersonn.backends import own_torch_state
from ase_andersonn.classifiers.base import ClassifierModel
from ase_andersonn.config import to_dict
from ase_andersonn.potentials.committee import Committee
from ase_andersonn.potentials.interface import Potential
from ase_andersonn.pretrained.catalog import CLASSIFIERS, DEFAULT_MODEL, FORMATS, model_files, read_header

from .file_checks import ANEW, DTYPES, check_tensors, read_card, read_json, read_model_config
from .migrations import migrate_architecture, migrate_tensors
from .registry import architecture


def save_model(model: Potential | ClassifierModel, path: str | Path, card: Mapping[str, Any] | None = None) -> None:
    """Write weights, config and card to `path` (`.safetensors`) and the card to the `.json` beside it.

    Both files are replaced whole; whatever happens meanwhile, `path` holds either the old model or the new one.

    Args:
        model: the model.
        path: file name ending in `.safetensors`.
        card: what is known of the model; its own card where not given.

    Raises:
        ValueError: for another ending, and for a committee.
    """
    path = Path(path)
    if isinstance(model, Committee):
        raise ValueError("a committee is written member by member, into one folder; load_model takes the folder.")
    if path.suffix != ".safetensors":
        raise ValueError(f"{path} does not end in .safetensors; models are written in that format alone.")
    left_out = model.absent_tensors() if isinstance(model, Potential) else ()
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items() if name not in left_out
    }
    header = {
        "format": FORMATS[-1],
        "architecture": type(model).__name__,
        "config": json.dumps(to_dict(model.config), sort_keys=True),
        "card": json.dumps(dict(model.card if card is None else card), sort_keys=True),
    }
    header["sha256"] = content_hash(tensors, header)
    atomic_write(path, save(tensors, header))
    text = json.dumps({**header, "config": json.loads(header["config"]), "card": json.loads(header["card"])}, indent=2)
    atomic_write(path.with_suffix(".json"), (text + "\n").encode())


@own_torch_state()
def load_model(name_or_path: str | Path | None = None) -> Potential:
    """A model from a file, or a packaged one by its name; float32, on the CPU, ready for use.

    Args:
        name_or_path: a packaged model's name, the path of a `.safetensors` file or of a folder of them, which make a
            committee, or None for the default model.

    Raises:
        FileNotFoundError: if there is neither; the text lists the packaged models.
        ValueError: if the file is truncated, altered or no model of this package, if its tensors are not those of its
            config, or not finite.
    """
    files = model_files(DEFAULT_MODEL if name_or_path is None else name_or_path)
    members: list[Potential] = [_load(file, Potential) for file in files]
    return members[0] if len(members) == 1 else Committee(members)


@own_torch_state()
def load_classifier(name_or_path: str | Path) -> ClassifierModel:
    """A classifier from a file, or a packaged one by its name; float32, on the CPU, ready for use.

    Raises:
        FileNotFoundError: if there is neither; the text lists the packaged classifiers.
        ValueError: if the file is truncated, altered or no classifier of this package, and for a folder of several.
    """
    files = model_files(name_or_path, CLASSIFIERS)
    if len(files) > 1:
        raise ValueError(f"{name_or_path} holds {len(files)} classifiers; StructureClassifier takes them together.")
    model = _load(files[0], ClassifierModel)
    assert isinstance(model, ClassifierModel)
    return model


def _load(path: Path, base: type[Any]) -> Any:
    """The model of a file, of a class derived from `base`."""
    header = read_header(path)
    tensors = _tensors(path)
    expected, found = header.get("sha256"), content_hash(tensors, header)
    if expected != found:
        raise ValueError(
            f"{path} was altered: its content has the hash {found[:12]}…, the file says {str(expected)[:12]}…. "
            "Copy or create it again."
        )
    card = read_card(path, header)
    header = migrate_architecture(header, read_json(path, header, "config"))
    name = header.get("architecture", "")
    try:
        cls: Any = architecture(base, name)
    except ValueError as error:
        raise ValueError(f"{path} holds a {name}, not a {base.__name__}: {error}") from error
    if cls is Committee:
        raise ValueError(f"{path} says it is a committee, which is a folder of model files. {ANEW}")
    tensors = migrate_tensors(header["format"], name, tensors)
    config = read_model_config(path, header, cls, tensors)
    check_tensors(path, lambda: cls(config), tensors)
    with torch.random.fork_rng(devices=[]):
        model = cls(config)
    model.load_state_dict(tensors)
    model.card = card
    return model.eval().requires_grad_(False)


def _tensors(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        types = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 (not a mapping)
        for name, dtype in types.items():
            if dtype not in DTYPES:
                raise ValueError(f"{name} of {path} is of type {dtype}; a model holds {', '.join(DTYPES)}. {ANEW}")
        return {name: file.get_tensor(name) for name in types}


def content_hash(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    """SHA-256 over architecture, config, card, and the names, shapes, types and bytes of the tensors."""
    digest = hashlib.sha256()
    for key in ("format", "architecture", "config", "card"):
        digest.update(f"{key}={header.get(key)}\n".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
