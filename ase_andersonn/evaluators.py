"""Choice of the evaluator of a potential."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from .checkpoints.checkpoint import load_model
from .engine.evaluator import DirectEvaluator
from .lattice.density_model import ImageEvaluator, ImageModel
from .lattice.evaluator import LatticeEvaluator
from .lattice.model import GridModel
from .potentials.base import EnergyModel
from .potentials.committee import Committee, CommitteeEvaluator
from .potentials.interface import Evaluator, Potential, Settings
from .tiles.auto import AutoEvaluator
from .tiles.evaluator import TiledEvaluator
from .tiles.settings import Tiles

ModelSource = str | Path | Potential
TilesArgument = Literal["on", "auto"] | Tiles | None


def potential_from(model: ModelSource | Sequence[ModelSource] | None) -> Potential:
    """Potential from the argument `model` of a calculator; a sequence is a committee.

    Raises:
        TypeError: if it is not a model, name, path, or sequence of these.
        FileNotFoundError, ValueError: see `load_model`.
    """
    if model is None or isinstance(model, str | Path):
        return load_model(model)
    if isinstance(model, Potential):
        return model
    if not isinstance(model, Sequence):
        raise TypeError(f"model is {model!r}; give a name, a path, a model, or a sequence of these.")
    return Committee([potential_from(member) for member in model])


def own_copy(model: Potential, settings: Settings) -> Potential:
    """Potential on the settings' device and in their precision: the same object if it fits, otherwise a copy."""
    wanted = settings.device, settings.dtype
    fits = all((p.device, p.dtype) == wanted and not p.requires_grad for p in model.parameters())
    plain = not any(t.is_inference() for t in (*model.parameters(), *model.buffers()))
    if fits and plain and not any(module.training for module in model.modules()):
        return model
    return copy.deepcopy(model).to(device=settings.device, dtype=settings.dtype).eval().requires_grad_(False)


def evaluator_for(model: Potential, settings: Settings, tiles: TilesArgument = None) -> Evaluator:
    """Create the evaluator of a potential, whose weights are on the settings' device and in their precision.

    Args:
        model: the potential.
        settings: see `AndersoNN`.
        tiles: see `AndersoNN`.

    Raises:
        ValueError: for invalid tiles, and for tiles or a solver with a model that has its own.
        TypeError: for a kind of potential without an evaluator.
    """
    if isinstance(model, Committee):
        return CommitteeEvaluator([evaluator_for(member, settings, tiles) for member in model.members])  # type: ignore[arg-type]
    if isinstance(model, EnergyModel):
        return DirectEvaluator(model, settings) if tiles is None else _tiled(model, settings, tiles)
    if settings.solver != Settings.solver:
        raise ValueError(
            f"solver is {settings.solver!r}; a {type(model).__name__} solves its tiles by Anderson acceleration, leave "
            "it out."
        )
    if tiles is not None:
        raise ValueError(f"tiles is {tiles!r}; a {type(model).__name__} has tiles of its own, leave it out.")
    if isinstance(model, GridModel):
        return LatticeEvaluator(model, settings)
    if isinstance(model, ImageModel):
        return ImageEvaluator(model, settings)
    raise TypeError(
        f"model is a {type(model).__name__}; a potential has to be an EnergyModel, a GridModel or an ImageModel."
    )


def members_with_candidates(model: Potential) -> list[EnergyModel]:
    """The potential, or the members of a committee, whose ways to run can be compared, see `engine.optimize.choose`.

    Raises:
        ValueError: for a kind of potential that has one way.
    """
    members: list[EnergyModel] = []
    for member in model.members if isinstance(model, Committee) else [model]:
        if not isinstance(member, EnergyModel):
            raise ValueError(f"a {type(member).__name__} has one way to run: there is nothing to optimize.")
        members.append(member)
    return members


def choose_candidates(model: Potential, device: torch.device) -> None:
    """Have the fastest way to run each member chosen where no choice is kept; see `members_with_candidates`."""
    from .engine.optimize.choose import optimized

    for member in members_with_candidates(model):
        optimized(member, device)


def _tiled(model: EnergyModel, settings: Settings, tiles: Literal["on", "auto"] | Tiles) -> Evaluator:
    if tiles == "auto":
        return AutoEvaluator(model, settings, Tiles())
    if tiles == "on":
        tiles = Tiles()
    if not isinstance(tiles, Tiles):
        raise ValueError(f'tiles is {tiles!r}; it is None, "on", "auto", or Tiles(focus=, context=, max_memory=).')
    return TiledEvaluator(model, settings, focus=tiles.focus, context=tiles.context, max_memory=tiles.max_memory)
