"""Structures of every kind a neighbour list meets, and edges in a form that can be compared."""

import numpy as np
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.neighborlist import neighbor_list

from ase_andersonn.structures import Edges

SKEWED = [[3.0, 0.0, 0.0], [2.5, 3.0, 0.0], [1.0, -1.5, 2.8]]


def rattled(atoms: Atoms, stdev: float = 0.1) -> Atoms:
    atoms.rattle(stdev, seed=1)
    return atoms


def scattered(n: int, cell: object, pbc: object, *, size: float = 9.0) -> Atoms:
    """Atoms at random, also far outside the cell."""
    positions = np.random.default_rng(n).random((n, 3)) * size - 2.0 * size
    return Atoms(numbers=[6] * n, positions=positions, cell=cell, pbc=pbc)


STRUCTURES = {
    "bulk": rattled(bulk("Si", cubic=True) * (2, 2, 2)),
    "crystal": bulk("Si", cubic=True),
    "one-atom cell": bulk("Cu"),
    "slab": rattled(fcc111("Al", (2, 2, 3), vacuum=8.0)),
    "slab without a third vector": rattled(fcc111("Al", (2, 2, 3))),
    "wire": scattered(4, [0.0, 0.0, 3.1], [False, False, True], size=3.0),
    "molecule": molecule("CH3CH2OH"),
    "molecule in a box": Atoms(molecule("CH3CH2OH"), cell=[9.0, 9.0, 9.0], pbc=False),
    "skewed": scattered(5, SKEWED, True),
    "skewed slab": scattered(5, SKEWED, [True, False, True]),
    "skewed wire": scattered(5, SKEWED, [False, True, False]),
    "left-handed": scattered(5, [[0.0, 4.0, 0.0], [4.5, 0.0, 0.0], [0.0, 0.3, 5.0]], True),
    "flat": scattered(3, [12.0, 12.0, 1.5], True),
    "single atom": Atoms("H", positions=[[1.0, 2.0, 3.0]]),
    "isolated atoms": Atoms("H3", positions=np.diag([50.0, 60.0, 70.0])),
    "isolated in a large cell": Atoms("H2", positions=[[0.0] * 3, [20.0] * 3], cell=[40.0] * 3, pbc=True),
}


def edge_set(center: object, other: object, offset: object) -> list[tuple[int, ...]]:
    """The edges as sorted tuples (center, other, offset)."""
    return sorted(map(tuple, np.column_stack((center, other, offset)).astype(int).tolist()))


def edge_set_of(edges: Edges) -> list[tuple[int, ...]]:
    return edge_set(edges.center, edges.other, edges.offset)


def ase_edge_set(atoms: Atoms, cutoff: float) -> list[tuple[int, ...]]:
    return edge_set(*neighbor_list("ijS", atoms, cutoff))
