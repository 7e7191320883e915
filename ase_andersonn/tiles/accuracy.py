"""Error of the tiled energy, and the choice of focus and context for a given accuracy.

A rigorous bound: let γ be the contraction factor of the equilibrium cell in the norm `max_i |z_i|₂` (see
`nn.equilibrium_cell`). Omitting messages from atoms that a tile does not solve for changes the features of an atom `n`
cutoffs away from them by at most `γⁿ max |z|`, so

    |E_tiled − E_untiled| / n_atoms ≤ γ^(1 + ⌊(context − receptive_field) / cutoff⌋) · max_i |z_i|₂ · max_i |∂e_i/∂z_i|₂

where `EnergyModel.receptive_field` is one or two cutoffs, `z` are the untiled features, and the gradient of the readout
is the largest between tiled and untiled features. The bound holds for all structures but is loose: trained cells
contract much more strongly than γ. Contexts are therefore chosen by measurement: the energies of a few small tiles with
increasing context are compared to those with the widest.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import covalent_radii

from ase_andersonn.engine.compiled import compiled_model
from ase_andersonn.engine.equilibrium import SolveOptions
from ase_andersonn.potentials.base import EnergyModel

from .cluster import gather
from .grid import CellList, Floats, cut, frame
from .memory import available_memory, row_bytes
from .settings import Tiles
from .tile_solver import solve_tiles

DEFAULT_ACCURACY = 1e-5
"""eV/atom; accuracy for which a context is chosen where the user gives none."""
CONTEXT_RATIOS = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)
"""Contexts measured, in cutoffs; 1 is the receptive field. The last one is the reference."""
PROBE_TILES = 4
"""Number of tiles on which the error is measured."""
SAFETY_FACTOR = 3.0
"""Assumed error of a tile divided by the measured root-mean-square error."""
PROBE_FOCUS = 0.5
"""Focus of these tiles, in cutoffs: the error per atom is largest for small tiles."""
MAX_PROBE_BOXES = 1 << 20
"""Largest number of boxes in the grid for this measurement."""
EFFICIENT_SOLVED_ATOMS = 2048
"""Solved atoms of a tile at which the context adds little cost and memory is not a limit."""


def decay(model: EnergyModel, atoms: Atoms, ratios: Sequence[float] = CONTEXT_RATIOS, seed: int = 0) -> Floats:
    """`√⟨(E_t(context) − E_t(widest))² / n_t²⟩` , the RMS tiling error per context, eV/atom.

    Measured in float64 on a few small tiles around randomly chosen atoms; the error per atom of larger tiles is
    smaller. The shape is [n_ratios − 1], as the widest context is the reference.

    Args:
        model: an equilibrium model.
        atoms: a structure of any size; only the sampled tiles are evaluated.
        ratios: contexts as in `CONTEXT_RATIOS`, ascending, 1 or more.
        seed: seed of the random choice of tiles.
    """
    exact = copy.deepcopy(model).to(device="cpu", dtype=torch.float64).requires_grad_(False)
    compiled, device = compiled_model(exact, torch.device("cpu"), False), torch.device("cpu")
    focus, cutoff = PROBE_FOCUS * model.cutoff, model.cutoff
    grid = cut(atoms.positions, atoms.cell.array, atoms.pbc, _probe_focus(atoms, focus), _context(model, ratios[-1]))
    bins = CellList(grid, atoms.positions)
    picks = np.random.default_rng(seed).choice(len(atoms), min(PROBE_TILES, len(atoms)), replace=False)
    own = grid.bin_of(grid.heights(atoms.positions[picks])[0]) // grid.split
    tiles = np.unique(own, axis=0)
    options = SolveOptions(1e-20)
    energies = np.zeros((len(ratios), len(tiles)))
    for k, ratio in enumerate(ratios):
        for t, tile in enumerate(tiles):
            cluster = gather(
                grid, bins, atoms.positions, tile[None], _context(model, ratio), cutoff, model.receptive_field
            )
            numbers = atoms.numbers[cluster.atom]
            settings: dict[str, Any] = {"forces": False, "keep": False, "dtype": torch.float64, "device": device}
            solved = solve_tiles(exact, compiled, cluster, numbers, options, **settings)
            energies[k, t] = solved.tile_energies[0] / int(cluster.focus.sum())
    errors: Floats = np.sqrt(np.mean(np.square(energies[:-1] - energies[-1]), 1))
    return errors


def context_for(model: EnergyModel, accuracy: float, atoms: Atoms | None = None) -> float:
    """Context with `|E_tiled − E_untiled| / n_atoms ≤ accuracy`, from a measurement on a structure, Å.

    The errors of contexts between the receptive field and 1.5 cutoffs more are measured (`decay`) and multiplied by a
    safety factor of three. If the widest is not sufficient, the error is extrapolated: it falls by the contraction
    factor γ with each further cutoff, if the model's config has one. This is an estimate; see the bound above for a
    guarantee.

    Args:
        model: an equilibrium model.
        accuracy: eV/atom.
        atoms: a structure similar to those to be tiled; None for a disordered one of the model's elements, whose errors
            tend to be larger than those of structures similar to the training data.

    Raises:
        ValueError: for an accuracy that is not positive or cannot be reached.
    """
    if not (math.isfinite(accuracy) and accuracy > 0):
        raise ValueError(f"accuracy is {accuracy} eV/atom; it has to be a positive number.")
    errors = SAFETY_FACTOR * decay(model, disordered(model) if atoms is None else atoms)
    enough = np.flatnonzero(errors <= accuracy)
    if len(enough):
        return _context(model, CONTEXT_RATIOS[enough[0]])
    contraction = getattr(model.config, "contraction", None)
    if contraction is None:
        raise ValueError(
            f"with a context of {_context(model, CONTEXT_RATIOS[-2]):g} Å the error is about {errors[-1]:.1e} eV/atom, "
            "and the model's config has no contraction to extrapolate with. Allow a larger error, or give a context."
        )
    more = math.log(accuracy / errors[-1]) / math.log(contraction)
    return _context(model, CONTEXT_RATIOS[-2] + math.ceil(more))


def _context(model: EnergyModel, ratio: float) -> float:
    """Context of a ratio (see `CONTEXT_RATIOS`), Å."""
    return model.receptive_field + (ratio - 1.0) * model.cutoff


def disordered(model: EnergyModel, repeats: int = 8, seed: int = 0) -> Atoms:
    """Rattled cubic lattice with randomly placed elements of the model; its spacing is 1.2 mean bond lengths."""
    random = np.random.default_rng(seed)
    numbers = random.choice(model.elements, repeats**3)
    spacing = 2.4 * float(np.mean(covalent_radii[list(model.elements)]))
    grid = np.stack(np.meshgrid(*3 * [np.arange(repeats)], indexing="ij"), -1).reshape(-1, 3)
    positions = spacing * (grid + random.normal(scale=0.05, size=grid.shape))
    return Atoms(numbers, positions, cell=3 * [repeats * spacing], pbc=True)


def choose_tiles(model: EnergyModel, atoms: Atoms, max_memory: int | None = None, given: Tiles | None = None) -> Tiles:
    """Tiles for a structure: the context for `DEFAULT_ACCURACY`, the focus for a few thousand solved atoms.

    Args:
        model: an equilibrium model.
        atoms: the structure.
        max_memory: bytes that an evaluation may take; None for half of what is available.
        given: lengths given by the user, which are kept.
    """
    given = given or Tiles()
    context = given.context or context_for(model, DEFAULT_ACCURACY, atoms)
    memory = max_memory or available_memory(next(model.parameters()).device) // 2
    fitting = max(0.3 * memory / row_bytes(model, 64, forces=True), 1.0)
    limits = (context - model.receptive_field, EFFICIENT_SOLVED_ATOMS), (context - model.cutoff, fitting)
    focus = given.focus or min(_focus_for(atoms, margin, rows, model.cutoff) for margin, rows in limits)
    return Tiles(focus, context, max_memory)


def _focus_for(atoms: Atoms, margin: float, rows: float, smallest: float) -> float:
    """Focus with about `rows` atoms within `margin` of it at uniform density, Å."""
    heights = _heights(atoms)

    def filled(focus: float) -> float:
        wide = np.minimum(focus, heights) + 2 * margin
        share = np.where(atoms.pbc, wide, np.minimum(heights, wide)) / heights
        return float(len(atoms) * np.prod(share))

    longest = float(heights.max())
    if atoms.pbc.any():  # an even division of at least one periodic axis
        longest = float(heights[atoms.pbc].max()) / 1.51 if not (heights[~atoms.pbc] > smallest).any() else longest
    low, high = min(smallest, longest), max(longest, min(smallest, longest))
    if filled(high) <= rows:
        return high
    for _ in range(50):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if filled(middle) <= rows else (low, middle)
    return low


def _heights(atoms: Atoms) -> Floats:
    """Height of the cell along periodic axes, extent of the atoms along open ones, Å."""
    full, heights = frame(atoms.cell.array, atoms.pbc)
    for axis in np.flatnonzero(~atoms.pbc):
        heights[axis] = max(float(np.ptp(atoms.positions @ np.linalg.inv(full)[:, axis])), 1.0)
    return heights


def _probe_focus(atoms: Atoms, focus: float) -> float:
    """Focus for the measurement, Å: small enough for two boxes, large enough for at most `MAX_PROBE_BOXES`."""
    heights = _heights(atoms)
    while np.prod(np.maximum(heights / focus, 1.0)) > MAX_PROBE_BOXES:
        focus *= 2.0
    return min(focus, float(heights[atoms.pbc].max()) / 1.51) if atoms.pbc.any() else focus
