"""How far the tiled energy is from the untiled one, and the tiles for a wanted accuracy.

A bound. With the cell's contraction γ in the norm `max_i |z_i|₂` (see `nn.equilibrium_cell`), leaving out the messages
of atoms that a tile does not solve for changes the features of an atom `n` cutoffs inside of them by at most
`γⁿ max |z|`, so

    |E_tiled − E_untiled| / n_atoms ≤ γ^(1 + ⌊(context − reach) / cutoff⌋) · max_i |z_i|₂ · max_i |∂e_i/∂z_i|₂

for a reach (`EnergyModel.receptive_field`) of one cutoff or two, the untiled features `z` and the steepest slope of the
readout between them. It holds for all structures and is far from reached: trained cells hand on much less than γ. So
contexts are chosen by what is measured: the energies of a few small tiles with one context after the other against
those with the widest.
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

ACCURACY = 1e-5
"""eV/atom, where tiles are chosen without being asked for more."""
RATIOS = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)
"""Contexts tried, in cutoffs, where 1 is the model's reach; the last stands for an endless context."""
SAMPLES = 4
"""Tiles that the error is measured on."""
SAFETY = 3.0
"""The error of any tile is taken to be so many times the root mean square of those measured."""
PROBE = 0.5
"""Focus of the tiles that the error is measured on, in cutoffs: small ones, which feel most of it."""
MOST_PROBES = 1 << 20
"""Boxes that a structure is cut into for that."""
BEST_SOLVED = 2048
"""Solved atoms of a tile at which the surroundings cost little, and memory is no concern."""


def decay(model: EnergyModel, atoms: Atoms, ratios: Sequence[float] = RATIOS, seed: int = 0) -> Floats:
    """`√⟨(E_t(context) − E_t(widest))² / n_t²⟩` for contexts up to the second widest [n_ratios − 1], eV/atom.

    Measured in float64 on a few small tiles around randomly chosen atoms; the error per atom of larger ones is smaller.

    Args:
        model: an equilibrium model.
        atoms: a structure; it may be large, the tiles alone are looked at.
        ratios: contexts as in `RATIOS`, ascending, 1 or more.
        seed: of the choice of tiles.
    """
    exact = copy.deepcopy(model).to(device="cpu", dtype=torch.float64).requires_grad_(False)
    compiled, device = compiled_model(exact, torch.device("cpu"), False), torch.device("cpu")
    focus, cutoff = PROBE * model.cutoff, model.cutoff
    grid = cut(atoms.positions, atoms.cell.array, atoms.pbc, _probe_focus(atoms, focus), _context(model, ratios[-1]))
    bins = CellList(grid, atoms.positions)
    picks = np.random.default_rng(seed).choice(len(atoms), min(SAMPLES, len(atoms)), replace=False)
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
    """A context with `|E_tiled − E_untiled| / n_atoms ≤ accuracy`, by what is measured on a structure, Å.

    Contexts from the model's reach to 1.5 cutoffs more are measured (`decay`), and taken to be three times as bad as
    that. Where the widest of them does not do, the error is taken to fall on by the contraction γ with each cutoff,
    where the model's config states one. A measurement is no proof: for one see the bound above.

    Args:
        model: an equilibrium model.
        accuracy: eV/atom.
        atoms: a structure like those that tiles are wanted for; None for a disordered one of the model's elements,
            for which errors are rather larger than for those that a model was trained on.

    Raises:
        ValueError: for an accuracy that is not positive, or out of reach.
    """
    if not (math.isfinite(accuracy) and accuracy > 0):
        raise ValueError(f"accuracy is {accuracy} eV/atom; it has to be a positive number.")
    errors = SAFETY * decay(model, disordered(model) if atoms is None else atoms)
    enough = np.flatnonzero(errors <= accuracy)
    if len(enough):
        return _context(model, RATIOS[enough[0]])
    contraction = getattr(model.config, "contraction", None)
    if contraction is None:
        raise ValueError(
            f"with a context of {_context(model, RATIOS[-2]):g} Å the error is about {errors[-1]:.1e} eV/atom, and the "
            "model states no contraction to go on with; ask for less, or give a context."
        )
    more = math.log(accuracy / errors[-1]) / math.log(contraction)
    return _context(model, RATIOS[-2] + math.ceil(more))


def _context(model: EnergyModel, ratio: float) -> float:
    """Å: of a model whose atoms tell what they see, one cutoff more."""
    return model.receptive_field + (ratio - 1.0) * model.cutoff


def disordered(model: EnergyModel, repeats: int = 8, seed: int = 0) -> Atoms:
    """A rattled cubic lattice of the model's elements at random, 1.2 times as wide as the mean of their bonds."""
    random = np.random.default_rng(seed)
    numbers = random.choice(model.elements, repeats**3)
    spacing = 2.4 * float(np.mean(covalent_radii[list(model.elements)]))
    grid = np.stack(np.meshgrid(*3 * [np.arange(repeats)], indexing="ij"), -1).reshape(-1, 3)
    positions = spacing * (grid + random.normal(scale=0.05, size=grid.shape))
    return Atoms(numbers, positions, cell=3 * [repeats * spacing], pbc=True)


def choose_tiles(model: EnergyModel, atoms: Atoms, max_memory: int | None = None, given: Tiles | None = None) -> Tiles:
    """Tiles for a structure: the context for `ACCURACY`, the focus for a few thousand solved atoms.

    Args:
        model: an equilibrium model.
        atoms: the structure.
        max_memory: bytes that an evaluation may take; None for half of what is available.
        given: lengths that are decided already.
    """
    given = given or Tiles()
    context = given.context or context_for(model, ACCURACY, atoms)
    memory = max_memory or available_memory(next(model.parameters()).device) // 2
    fitting = max(0.3 * memory / row_bytes(model, 64, forces=True), 1.0)
    limits = (context - model.receptive_field, BEST_SOLVED), (context - model.cutoff, fitting)
    focus = given.focus or min(_focus_for(atoms, margin, rows, model.cutoff) for margin, rows in limits)
    return Tiles(focus, context, max_memory)


def _focus_for(atoms: Atoms, margin: float, rows: float, smallest: float) -> float:
    """The focus with about so many atoms within `margin` of it, Å; space is taken to be evenly filled."""
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
    """No larger than makes two boxes of the cell; where that would be millions of them, larger."""
    heights = _heights(atoms)
    while np.prod(np.maximum(heights / focus, 1.0)) > MOST_PROBES:
        focus *= 2.0
    return min(focus, float(heights[atoms.pbc].max()) / 1.51) if atoms.pbc.any() else focus
