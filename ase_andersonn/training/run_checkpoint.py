"""The checkpoint: one safetensors file, tensors in its body, JSON and a checksum in its header, replaced atomically."""

import io
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from ase_andersonn.atomic_write import atomic_file
from ase_andersonn.checkpoints.migrations import migrate_run
from ase_andersonn.checksum import BLANK, check_is_file, fill_in, verify

from .ema import WeightAverage
from .optimizer import SIDES

logger = logging.getLogger(__name__)

KEY, CHECKSUM = "state", "sha256"
RANDOM = "random/"


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Replace the file. Whatever happens meanwhile, it holds either the old checkpoint or the new one, whole."""
    body = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    data = save(body, metadata={KEY: json.dumps(state), CHECKSUM: BLANK})
    with atomic_file(path) as file:
        file.write(data)
        fill_in(file, _place(data))


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of a checkpoint.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the file is damaged, or no checkpoint of a training run.
    """
    try:
        check_is_file(path)
        data = path.read_bytes()
        metadata = _metadata(data)
        if metadata.keys() == {KEY}:
            logger.warning("%s has no checksum, as an earlier version of this package wrote it.", path)
        elif metadata.keys() == {KEY, CHECKSUM}:
            verify(io.BytesIO(data), _place(data))
        else:
            raise ValueError("it is damaged, or a file of another kind")
        return migrate_run(load(data), json.loads(metadata[KEY]))
    except FileNotFoundError:
        raise
    except Exception as error:  # what is raised for damaged files is not a closed list
        raise ValueError(
            f"{path} is no checkpoint of a training run that can be read ({str(error).rstrip('.')}). Put a copy in its "
            "place, or begin the run anew with --fresh; copy the models beside it first, if they are still wanted."
        ) from error


def _metadata(data: bytes) -> dict[str, str]:
    """Of a safetensors file; empty for anything else."""
    try:
        return dict(json.loads(data[8 : _header_end(data)])["__metadata__"])
    except (ValueError, KeyError, TypeError):
        return {}


def _header_end(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")


def _place(data: bytes) -> int:
    """Of the checksum in a safetensors file; within the state's text, quotation marks are escaped."""
    key = f'"{CHECKSUM}":"'.encode()
    return data.index(key, 0, _header_end(data)) + len(key)


def generators(device: torch.device) -> dict[str, torch.Generator]:
    """The random generators that work on a device draws from: the CPU's, and on a GPU that of the GPU."""
    found = {"cpu": torch.default_generator}
    if device.type == "cuda":
        found["cuda"] = torch.cuda.default_generators[device.index]
    return found


@contextmanager
def own_random_numbers(device: torch.device, seed: int, states: Mapping[str, Tensor]) -> Iterator[None]:
    """Random generators in these states, or with this seed where there is none; afterwards they are as before."""
    used = generators(device)
    before = {name: generator.get_state() for name, generator in used.items()}
    try:
        for name, generator in used.items():
            if name in states:
                generator.set_state(states[name])
            else:
                generator.manual_seed(seed)
        yield
    finally:
        for name, generator in used.items():
            generator.set_state(before[name])


def random_states(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of `state_tensors`, by the generator's name."""
    return _under(tensors, RANDOM)


def state_tensors(
    model: nn.Module, learnt: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, average: WeightAverage
) -> dict[str, Tensor]:
    """All tensors of a run: weights, buffers, moments of the optimiser, averaged weights, random states.

    `learnt` are the optimiser's parameters by name; those that are none of the model's own are kept beside it.
    """
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average/{name}": value for name, value in average.average.items()}
    own = dict(model.named_parameters())
    tensors |= {f"learnt/{name}": p for name, p in learnt.items() if name not in own}
    for name, p in learnt.items():
        for key, value in optimizer.state.get(p, {}).items():
            tensors[f"optimizer/{key}/{name}"] = value
    used = generators(next(model.parameters()).device)
    return tensors | {f"{RANDOM}{name}": generator.get_state() for name, generator in used.items()}


@torch.no_grad()
def load_state_tensors(
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    learnt: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    average: WeightAverage,
) -> None:
    """Put back what `state_tensors` returned, except for the random states, which belong to the whole process.

    Raises:
        ValueError: where weights or moments are not those of this version's networks and optimiser.
    """
    if any(name.startswith("optimizer/mean/") for name in tensors):
        raise ValueError("the run was written by another version of this package; begin it anew.")
    try:
        model.load_state_dict(_under(tensors, "model/"))
    except RuntimeError as error:
        raise ValueError(f"the run was written by another version of this package: {error}. Begin it anew.") from error
    for name, value in _under(tensors, "average/").items():
        average.average[name].copy_(value)
    for name, value in _under(tensors, "learnt/").items():
        learnt[name].copy_(value)
    moments = _under(tensors, "optimizer/")
    _check_moments(moments, learnt)
    for name, p in learnt.items():
        found = {key.removesuffix(f"/{name}"): value for key, value in moments.items() if key.split("/", 1)[1] == name}
        if found:
            # Copies of their own: in the file's memory they are not aligned, on which a product's last bit depends.
            optimizer.state[p] = {
                key: value.to("cpu" if key == "step" else p.device, copy=True) for key, value in found.items()
            }


def _check_moments(moments: Mapping[str, Tensor], learnt: Mapping[str, Tensor]) -> None:
    """Raise ValueError where a parameter has some of the optimiser's moments; those without any gather them anew."""
    found = [key.split("/", 1) for key in moments]
    needed = {kind for kind, _ in found if not kind.startswith(SIDES)}
    for name in learnt:
        own = {kind for kind, of in found if of == name}
        if own and not needed <= own:
            missing = ", ".join(sorted(needed - own))
            raise ValueError(f"the run was written by another version of this package: {name} lacks {missing}.")


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
