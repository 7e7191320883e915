"""The empty space of a framework as numbers that do not depend on its cell.

    s(p) = min_i |p − r_i| − R_i,    diameter = 2 max_p s(p),    void fraction = share of the cell with s(p) > ρ

`R_i` are van der Waals radii, so `s(p)` is the radius of the largest sphere about `p` that touches no atom, and the
diameter is that of the largest included sphere (Willems et al., Microporous Mesoporous Mater. 149, 134 (2012)).

`s` changes by no more than the way that `p` goes. So a coarse grid shows which of its boxes can hold the maximum; these
are halved until they are smaller than `ACCURACY`.
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
"""Å, of the elements that the table has no radius for, up to lawrencium; as is usual for pores of frameworks."""
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Of `s` over the cell."""
PROBES = (0.0, 0.6, 1.2, 1.8, 2.4)
"""Radii ρ of the void fractions, Å; 1.3 is that of helium, 1.8 that of nitrogen."""
STEPS = (3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 16.0, 20.0)
"""Diameters of smooth steps, Å: a threshold is learnt sooner from these than from the diameter alone."""
STEP_WIDTH = 0.5
"""Å."""
ACCURACY = 0.005
"""Å, to which the largest radius is found."""
LARGEST = 40.0
"""Å; radii beyond, as in a cell that is vacuum for the most part, count as this."""
SPACING = 1.0
"""Å, of the grid in cells between `FEWEST` and `MOST` Å³; finer in smaller cells, coarser in larger ones."""
FEWEST, MOST = 3000, 20000
"""Points of the grid."""
BOXES = 128
"""Boxes kept to be halved: those with the largest radii in their middles."""
CORNERS: Floats = np.array(list(itertools.product((-0.5, 0.5), repeat=3)))
"""Of a box, seen from its middle, in its edges."""


@cache
def void_radii() -> Floats:
    """Van der Waals radius of each atomic number [N_ELEMENTS + 1], Å; nan for 0.

    Bondi's (J. Phys. Chem. 68, 441 (1964)) and for hydrogen Rowland and Taylor's (J. Phys. Chem. 100, 7384 (1996)), as
    the Cambridge Crystallographic Data Centre lists them and the pore diameters of CoRE MOF were computed with.
    """
    radii = np.full(N_ELEMENTS + 1, OTHER_RADIUS)
    radii[0] = math.nan
    for entry in _RADII.replace("\n", "").split("|"):
        symbol, radius = entry.split()
        radii[atomic_numbers[symbol]] = float(radius)
    return radii


def n_pore_features() -> int:
    """Length of what `pore_features` returns."""
    return 1 + len(STEPS) + len(QUANTILES) + len(PROBES)


def pore_features(atoms: Atoms) -> Floats:
    """Diameter of the largest included sphere, steps of it, quantiles of `s`, and void fractions [n_pore_features].

    Diameter and quantiles are in Å; a step at `d` is `1 / (1 + exp((d − diameter) / STEP_WIDTH))`.

    A structure that does not repeat in all three directions is open to the vacuum: it encloses nothing, and all are 0.
    Where atoms leave no room, as in metals, the diameter is 0.

    The diameter is that of any cell to 0.02 Å nearly always; quantiles and fractions are those of a grid, so they
    differ from cell to cell by some 0.05 Å and 0.01.

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
    # a step that rises over the width of a box: a jump would make much more of where the points happen to be
    fractions = [np.clip((radii - probe) / step + 0.5, 0.0, 1.0).mean() for probe in PROBES]
    return np.concatenate([[diameter], _steps(diameter), np.quantile(radii, QUANTILES), fractions])


def _steps(diameter: float) -> Floats:
    steps: Floats = 1.0 / (1.0 + np.exp((np.array(STEPS) - diameter) / STEP_WIDTH))
    return steps


class _Grid(NamedTuple):
    """Middles of equal boxes that fill a cell."""

    points: Floats
    """[n_points, 3], Å"""
    steps: Floats
    """Edges of a box [3, 3], one a row, Å"""


class _Surfaces(NamedTuple):
    """Atoms and images as one tree for each radius, all that are within `margin` of the cell."""

    trees: list[tuple[float, Any]]
    margin: float

    def clearance(self, points: Floats) -> Floats:
        """`s` at points of the cell [n_points, 3], at most `LARGEST`; right up to margin − the largest radius."""
        nearest = np.full(len(points), LARGEST)
        for radius, tree in self.trees:
            np.minimum(nearest, tree.query(points)[0] - radius, out=nearest)
        return nearest


def _grid(cell: Floats) -> _Grid:
    volume = abs(np.linalg.det(cell))
    step = (volume / min(max(volume / SPACING**3, FEWEST), MOST)) ** (1.0 / 3.0)
    shape = np.ceil(np.linalg.norm(cell, axis=1) / step).astype(int)
    middles = [(np.arange(n) + 0.5) / n for n in shape]
    fractions = np.stack(np.meshgrid(*middles, indexing="ij"), -1).reshape(-1, 3)
    return _Grid(fractions @ cell, cell / shape[:, None])


def _clearances(atoms: Atoms, cell: Floats, grid: _Grid) -> tuple[_Surfaces, Floats]:
    """Surfaces that are enough for every point of the cell, and `s` on the grid [n_points]."""
    own = void_radii()[atoms.numbers]
    largest, margin = float(own.max()), 6.0
    while True:
        surfaces = _surfaces(atoms.positions, own, cell, margin)
        radii = surfaces.clearance(grid.points)
        # fewer atoms make larger radii, so what these ask for is never too little
        needed = min(float(radii.max()) + _half_diagonal(grid.steps), LARGEST) + largest
        if needed <= margin:
            return surfaces, radii
        margin = needed


def _surfaces(positions: Floats, radii: Floats, cell: Floats, margin: float) -> _Surfaces:
    from scipy.spatial import cKDTree  # a third of a second, and only frameworks need it

    inverse = np.linalg.inv(cell)
    around = margin * np.linalg.norm(inverse, axis=0)  # in fractions of the cell
    images = [np.arange(-n, n + 1) for n in np.ceil(around).astype(int)]
    shifts = np.stack(np.meshgrid(*images, indexing="ij"), -1).reshape(-1, 1, 3)
    fractions = positions @ inverse % 1.0 + shifts
    near = ((fractions >= -around) & (fractions <= 1.0 + around)).all(-1)
    points, of = fractions[near] @ cell, np.broadcast_to(radii, near.shape)[near]
    return _Surfaces([(float(r), cKDTree(points[of == r], balanced_tree=False)) for r in np.unique(of)], margin)


def _largest(surfaces: _Surfaces, grid: _Grid, radii: Floats) -> float:
    """The largest `s` of the cell, Å."""
    points, steps = grid.points, grid.steps
    half, best = _half_diagonal(steps), float(radii.max())
    while half > ACCURACY:
        kept = np.flatnonzero(radii + half > best + ACCURACY)
        if len(kept) == 0:
            break
        if len(kept) > BOXES:
            kept = kept[np.argpartition(-radii[kept], BOXES)[:BOXES]]
        steps, half = steps / 2.0, half / 2.0
        points = (points[kept, None] + CORNERS @ steps).reshape(-1, 3)
        radii = surfaces.clearance(points)
        best = max(best, float(radii.max()))
    return best


def _half_diagonal(steps: Floats) -> float:
    """The farthest that a point of a box is from its middle."""
    return float(np.linalg.norm(CORNERS @ steps, axis=1).max())
