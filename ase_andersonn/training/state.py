"""The checkpoint: one safetensors file, tensors in its body and JSON in its header, replaced atomically."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ase_andersonn.writing import write_whole

from .ema import WeightAverage

KEY = "state"


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Replace the file. Whatever happens meanwhile, it holds either the old checkpoint or the new one, whole."""
    body = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_whole(path, save(body, metadata={KEY: json.dumps(state)}))


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of a checkpoint.

    Raises:
        ValueError: if the file is no checkpoint of a training run.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        state: dict[str, Any] = json.loads(metadata[KEY])
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(
            f"{path} is no checkpoint of a training run ({error}). Begin the run anew with --fresh; copy the models "
            "beside it first, if they are still wanted."
        ) from error
    return tensors, state


def gather(
    model: nn.Module, learnt: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, average: WeightAverage
) -> dict[str, Tensor]:
    """All tensors of a run: weights, buffers, moments of the optimiser, averaged weights, random state.

    `learnt` are the optimiser's parameters by name; those that are none of the model's own are kept beside it.
    """
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average/{name}": value for name, value in average.average.items()}
    own = dict(model.named_parameters())
    tensors |= {f"learnt/{name}": p for name, p in learnt.items() if name not in own}
    for name, p in learnt.items():
        for key, value in optimizer.state.get(p, {}).items():
            tensors[f"optimizer/{key}/{name}"] = value
    tensors["random/cpu"] = torch.get_rng_state()
    return tensors


@torch.no_grad()
def scatter(
    tensors: Mapping[str, Tensor],
    model: nn.Module,
    learnt: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    average: WeightAverage,
) -> None:
    """Put back what `gather` returned, except for the random state, which belongs to the whole process.

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
    for name, p in learnt.items():
        found = {key.removesuffix(f"/{name}"): value for key, value in moments.items() if key.split("/", 1)[1] == name}
        if found:
            # Copies of their own: in the file's memory they are not aligned, on which a product's last bit depends.
            optimizer.state[p] = {
                key: value.to("cpu" if key == "step" else p.device, copy=True) for key, value in found.items()
            }


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
