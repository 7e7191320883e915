"""Pore features of a framework, independent of the choice of cell.

    s(p) = min_i |p − r_i| − R_i,    diameter = 2 max_p s(p),    void fraction = share of the cell with s(p) > ρ

`R_i` are van der Waals radii, so `s(p)` is the radius of the largest sphere around `p` without overlap with an atom,
and the diameter is that of the largest included sphere (Willems et al., Microporous Mesoporous Mater. 149, 134 (2012)).

`s` is Lipschitz continuous with constant 1, so a coarse grid shows which boxes can contain the maximum (branch and
bound); these are halved until they are smaller than `RADIUS_ACCURACY`.
"""

import itertools
import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.geometry import minkowski_reduce
from numpy.typing import NDArray

from ase_andersonn.structures.elements import N_ELEMENTS

Floats = NDArray[np.float64]

# fmt: off
_RADII = """
H 1.09|He 1.40|Li 1.82|C 1.70|N 1.55|O 1.52|F 1.47|Ne 1.54|Na 2.27|Mg 1.73|Si 2.10|P 1.80|S 1.80|Cl 1.75|Ar 1.88|
K 2.75|Ni 1.63|Cu 1.40|Zn 1.39|Ga 1.87|As 1.85|Se 1.90|Br 1.85|Kr 2.02|Pd 1.63|Ag 1.72|Cd 1.58|In 1.93|Sn 2.17|
Te 2.06|I 1.98|Xe 2.16|Pt 1.72|Au 1.66|Hg 1.55|Tl 1.96|Pb 2.02|U 1.86
"""
# fmt: on
OTHER_RADIUS = 2.0
"""Å; radius of elements that are not in the table, up to lawrencium, as is common for pores of frameworks."""
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Quantiles of `s` over the cell."""
PROBE_RADII = (0.0, 0.6, 1.2, 1.8, 2.4)
"""Radii ρ of the void fractions, Å; 1.3 is that of helium, 1.8 that of nitrogen."""
STEP_DIAMETERS = (3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 16.0, 20.0)
"""Å; diameters of smooth steps, from which thresholds are easier to learn than from the diameter alone."""
STEP_WIDTH = 0.5
"""Å; width of these steps."""
RADIUS_ACCURACY = 0.005
"""Å; accuracy of the largest radius."""
MAX_RADIUS = 40.0
"""Å; larger radii, as in a cell that is mostly vacuum, are set to this."""
GRID_SPACING = 1.0
"""Å; spacing of the grid, unless the limits of its number of points require another one."""
MIN_GRID_POINTS, MAX_GRID_POINTS = 3000, 20000
"""Limits of the number of points of the grid."""
BOXES_KEPT = 128
"""Largest number of boxes to be halved, those with the largest radii at their centres."""
BOX_CORNERS: Floats = np.array(list(itertools.product((-0.5, 0.5), repeat=3)))
"""Corners of a box, relative to its centre in units of its edges."""


@cache
def van_der_waals_radii() -> Floats:
    """Van der Waals radius of each atomic number [N_ELEMENTS + 1], Å; nan for 0.

    Bondi's (J. Phys. Chem. 68, 441 (1964)) and for hydrogen Rowland and Taylor's (J. Phys. Chem. 100, 7384 (1996)), as
    listed by the Cambridge Crystallographic Data Centre and used for the pore diameters of CoRE MOF.
    """
    radii = np.full(N_ELEMENTS + 1, OTHER_RADIUS)
    radii[0] = math.nan
    for entry in _RADII.replace("\n", "").split("|"):
        symbol, radius = entry.split()
        radii[atomic_numbers[symbol]] = float(radius)
    return radii


def n_pore_features() -> int:
    """Number of pore features."""
    return 1 + len(STEP_DIAMETERS) + len(QUANTILES) + len(PROBE_RADII)


def pore_features(atoms: Atoms) -> Floats:
    """Diameter of the largest included sphere, steps of it, quantiles of `s`, and void fractions [n_pore_features].

    Diameter and quantiles are in Å; a step at `d` is `1 / (1 + exp((d − diameter) / STEP_WIDTH))`.

    All features are 0 for structures that are not periodic in three directions, as they are open to the vacuum. The
    diameter is 0 if atoms leave no free space, as in metals.

    The diameter of equivalent cells agrees to 0.02 Å nearly always; quantiles and fractions are grid averages and
    differ between equivalent cells by about 0.05 Å and 0.01.

    Raises:
        ValueError: for an element without a radius.
    """
    unknown = [int(z) for z in np.unique(atoms.numbers) if not 0 < z <= N_ELEMENTS]
    if unknown:
        raise ValueError(f"the structure contains Z = {unknown}; radii are known for Z = 1 to {N_ELEMENTS}.")
    if not atoms.pbc.all():
        return np.zeros(n_pore_features())
    cell = minkowski_reduce(atoms.cell.array)[0]
    grid = _grid(cell)
    surfaces, radii = _clearances(atoms, cell, grid)
    diameter = 2.0 * max(_largest(surfaces, grid, radii), 0.0)
    step = abs(np.linalg.det(grid.steps)) ** (1.0 / 3.0)
    # a step smoothed over the width of a box, as a sharp one would depend more on the positions of the grid points
    fractions = [np.clip((radii - probe) / step + 0.5, 0.0, 1.0).mean() for probe in PROBE_RADII]
    return np.concatenate([[diameter], _steps(diameter), np.quantile(radii, QUANTILES), fractions])


def _steps(diameter: float) -> Floats:
    steps: Floats = 1.0 / (1.0 + np.exp((np.array(STEP_DIAMETERS) - diameter) / STEP_WIDTH))
    return steps


class _Grid(NamedTuple):
    """Centres of equal boxes that fill a cell."""

    points: Floats
    """[n_points, 3], Å"""
    steps: Floats
    """Edges of a box as rows [3, 3], Å"""


class _Surfaces(NamedTuple):
    """Search trees of atoms and periodic images within `margin` of the cell, one per radius."""

    trees: list[tuple[float, Any]]
    margin: float

    def clearance(self, points: Floats) -> Floats:
        """`s` at points of the cell [n_points, 3], at most `MAX_RADIUS`; exact up to margin − largest radius."""
        nearest = np.full(len(points), MAX_RADIUS)
        for radius, tree in self.trees:
            np.minimum(nearest, tree.query(points)[0] - radius, out=nearest)
        return nearest


def _grid(cell: Floats) -> _Grid:
    volume = abs(np.linalg.det(cell))
    step = (volume / min(max(volume / GRID_SPACING**3, MIN_GRID_POINTS), MAX_GRID_POINTS)) ** (1.0 / 3.0)
    shape = np.ceil(np.linalg.norm(cell, axis=1) / step).astype(int)
    middles = [(np.arange(n) + 0.5) / n for n in shape]
    fractions = np.stack(np.meshgrid(*middles, indexing="ij"), -1).reshape(-1, 3)
    return _Grid(fractions @ cell, cell / shape[:, None])


def _clearances(atoms: Atoms, cell: Floats, grid: _Grid) -> tuple[_Surfaces, Floats]:
    """Surfaces with a sufficient margin for the cell, and `s` on the grid [n_points]."""
    own = van_der_waals_radii()[atoms.numbers]
    largest, margin = float(own.max()), 6.0
    while True:
        surfaces = _surfaces(atoms.positions, own, cell, margin)
        radii = surfaces.clearance(grid.points)
        # fewer atoms give larger radii, so the margin from these is always sufficient
        needed = min(float(radii.max()) + _half_diagonal(grid.steps), MAX_RADIUS) + largest
        if needed <= margin:
            return surfaces, radii
        margin = needed


def _surfaces(positions: Floats, radii: Floats, cell: Floats, margin: float) -> _Surfaces:
    from scipy.spatial import cKDTree  # the import takes a third of a second and is needed for frameworks only

    inverse = np.linalg.inv(cell)
    around = margin * np.linalg.norm(inverse, axis=0)  # in fractions of the cell
    images = [np.arange(-n, n + 1) for n in np.ceil(around).astype(int)]
    shifts = np.stack(np.meshgrid(*images, indexing="ij"), -1).reshape(-1, 1, 3)
    fractions = positions @ inverse % 1.0 + shifts
    near = ((fractions >= -around) & (fractions <= 1.0 + around)).all(-1)
    points, of = fractions[near] @ cell, np.broadcast_to(radii, near.shape)[near]
    return _Surfaces([(float(r), cKDTree(points[of == r], balanced_tree=False)) for r in np.unique(of)], margin)


def _largest(surfaces: _Surfaces, grid: _Grid, radii: Floats) -> float:
    """Largest `s` in the cell, Å."""
    points, steps = grid.points, grid.steps
    half, best = _half_diagonal(steps), float(radii.max())
    while half > RADIUS_ACCURACY:
        kept = np.flatnonzero(radii + half > best + RADIUS_ACCURACY)
        if len(kept) == 0:
            break
        if len(kept) > BOXES_KEPT:
            kept = kept[np.argpartition(-radii[kept], BOXES_KEPT)[:BOXES_KEPT]]
        steps, half = steps / 2.0, half / 2.0
        points = (points[kept, None] + BOX_CORNERS @ steps).reshape(-1, 3)
        radii = surfaces.clearance(points)
        best = max(best, float(radii.max()))
    return best


def _half_diagonal(steps: Floats) -> float:
    """Half of the longest diagonal of a box, Å."""
    return float(np.linalg.norm(BOX_CORNERS @ steps, axis=1).max())
