"""Structures as tensors: the padded neighbour matrix of a whole batch.

    vectors[i, k] = positions[j] + offset @ cell - positions[i],    j = neighbors[i, k]

computed in float64 and rounded once to the model's precision. The number of neighbours is padded up to a bucket, so
that compiled code is not compiled again as it moves. Data sets hold `samples.Sample`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from .convert import check_atoms, check_sites
from .metadata import total_charge
from .neighbor_list import NeighborList
from .neighbors import Cutoff, Edges, edges_of, extremes_of
from .neighbors_cuda import device_edges, finds_edges_on

BUCKET = 8


@dataclass(frozen=True, eq=False)
class Graph:
    """A batch of structures with their neighbour matrix.

    Graphs made with the same neighbour list may share `neighbors`, `mask` and `reverse`: do not write into them.

    Args:
        numbers: int64 [n_atoms], atomic numbers.
        vectors: [n_atoms, n_neighbors, 3], edge vectors, Å; 0 where padded.
        neighbors: int64 [n_atoms, n_neighbors], index of the neighbour; own index where padded.
        mask: bool [n_atoms, n_neighbors], whether the slot holds an edge.
        reverse: int64 [n_atoms, n_neighbors], flat slot of the pair seen from the other end; own slot where padded.
        system: int64 [n_atoms], sorted; structure the atom belongs to.
        n_systems: number of structures.
        volume: [n_systems], Å^3; nan where not periodic in three directions.
        n_per_system: int64 [n_systems], atoms of each structure.
        positions: [n_atoms, 3], Å, as given; None in tiles, as are the two below.
        cell: [n_systems, 3, 3], lattice vectors as rows, Å.
        charge: [n_systems], total charge, e; 0 where none is given.
    """

    numbers: Tensor
    vectors: Tensor
    neighbors: Tensor
    mask: Tensor
    reverse: Tensor
    system: Tensor
    n_systems: int
    volume: Tensor
    n_per_system: Tensor
    positions: Tensor | None = None
    cell: Tensor | None = None
    charge: Tensor | None = None

    @property
    def n_atoms(self) -> int:
        return self.vectors.shape[0]

    @property
    def n_neighbors(self) -> int:
        return self.vectors.shape[1]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Graph:
        """The graph on a device, its real numbers in a precision."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        moved: dict[str, Any] = {
            name: value.to(device, dtype if value.is_floating_point() else None) for name, value in tensors.items()
        }
        return replace(self, **moved)


def bucket(n_neighbors: int) -> int:
    """The padded number of neighbours, ``BUCKET * max(1, ceil(n_neighbors / BUCKET))``."""
    return BUCKET * max(1, -(-n_neighbors // BUCKET))


def pad_edges(
    center: Tensor, other: Tensor, reverse: Tensor, vectors: Tensor, n_atoms: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Edges, sorted by center, as the padded matrix (vectors, neighbors, mask, reverse) of `Graph`, on their device.

    Args:
        center: int64 [n_edges], sorted.
        other: int64 [n_edges].
        reverse: int64 [n_edges].
        vectors: [n_edges, 3].
        n_atoms: number of rows.
    """
    slots = _slots(center, other, reverse, n_atoms)
    return _fill(slots, vectors), slots.neighbors, slots.mask, slots.reverse


class _Slots(NamedTuple):
    """The padded matrix without its vectors, and the flat slot of every edge."""

    neighbors: Tensor
    mask: Tensor
    reverse: Tensor
    slot: Tensor


def _slots(center: Tensor, other: Tensor, reverse: Tensor, n_atoms: int) -> _Slots:
    count = torch.bincount(center, minlength=n_atoms)
    n_neighbors = bucket(int(count.max())) if n_atoms else BUCKET
    row = torch.arange(n_atoms, device=center.device)
    column = torch.arange(n_neighbors, device=center.device)
    edge = torch.arange(len(center), device=center.device)
    slot = edge + (row * n_neighbors - count.cumsum(0) + count).index_select(0, center)
    neighbors = row.repeat_interleave(n_neighbors).scatter_(0, slot, other)
    own = torch.arange(n_atoms * n_neighbors, device=center.device)
    backward = own.scatter_(0, slot, slot.index_select(0, reverse))
    shape = (n_atoms, n_neighbors)
    return _Slots(neighbors.view(shape), column < count[:, None], backward.view(shape), slot)


def _fill(slots: _Slots, vectors: Tensor) -> Tensor:
    flat = vectors.new_zeros(slots.mask.numel(), 3).index_copy_(0, slots.slot, vectors)
    return flat.view(*slots.mask.shape, 3)


def graph_from_atoms(
    atoms: Atoms | Sequence[Atoms],
    cutoff: Cutoff,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    neighbor_list: NeighborList | None = None,
) -> Graph:
    """The graph of one structure, or of several as one batch.

    Args:
        atoms: structures.
        cutoff: Å; one for each pair of elements leaves fewer edges.
        dtype: precision of the vectors.
        device: where the graph lives and its padded matrix is made. On a CUDA device the edges are found there too,
            anew every time, where nvalchemi-toolkit-ops is installed.
        neighbor_list: list kept between calls, for one structure that moves.

    Raises:
        ValueError: for a structure that has no energy (see `check_atoms`), for no structure at all, and for a neighbour
            list of another cutoff or with several structures.
    """
    systems = [atoms] if isinstance(atoms, Atoms) else list(atoms)
    where = torch.device(device)
    _check_request(systems, cutoff, neighbor_list)
    slots, vectors = _slots_and_vectors(systems, cutoff, where, neighbor_list)
    n_per_system = torch.tensor([len(system) for system in systems])
    return Graph(
        numbers=torch.from_numpy(np.concatenate([system.numbers for system in systems])).to(where, torch.int64),
        vectors=_fill(slots, vectors.to(where, dtype)),
        neighbors=slots.neighbors,
        mask=slots.mask,
        reverse=slots.reverse,
        system=torch.arange(len(systems)).repeat_interleave(n_per_system).to(where),
        n_systems=len(systems),
        volume=torch.tensor([_volume(system) for system in systems], dtype=dtype, device=where),
        n_per_system=n_per_system.to(where),
        positions=torch.tensor(
            np.concatenate([system.positions.astype(float) for system in systems]), dtype=dtype, device=where
        ),
        cell=torch.tensor(np.stack([system.cell.array for system in systems]), dtype=dtype, device=where),
        charge=torch.tensor([total_charge(system) for system in systems], dtype=dtype, device=where),
    )


def _check_request(systems: Sequence[Atoms], cutoff: Cutoff, neighbor_list: NeighborList | None) -> None:
    if not systems:
        raise ValueError("no structures were given; a graph needs at least one.")
    if neighbor_list is not None and len(systems) > 1:
        raise ValueError(
            f"a neighbour list follows one structure; {len(systems)} were given. Leave it out for a batch."
        )
    if neighbor_list is not None and neighbor_list.cutoff != cutoff:
        raise ValueError(f"the neighbour list was made for {neighbor_list.cutoff} Å, the graph needs {cutoff} Å.")
    for k, system in enumerate(systems):
        with _naming(k, len(systems)):
            check_atoms(system, sites=False)


@contextmanager
def _naming(k: int, n_systems: int) -> Iterator[None]:
    """Say which structure of a batch an error is about."""
    try:
        yield
    except ValueError as error:
        if n_systems == 1:
            raise
        raise ValueError(f"structure {k} of {n_systems}: {error}") from error


def _slots_and_vectors(
    systems: Sequence[Atoms], cutoff: Cutoff, device: torch.device, neighbor_list: NeighborList | None
) -> tuple[_Slots, Tensor]:
    """The padded matrix, on the device, and the vectors [n_edges, 3] that go into it."""
    n_atoms = sum(len(system) for system in systems)
    if finds_edges_on(device):
        numbers = np.concatenate([atoms.numbers for atoms in systems])
        found = device_edges(systems, extremes_of(cutoff, numbers)[1], device)
        if found.on_one_site:
            _edges(systems, cutoff)  # raises, naming the atoms
        if neighbor_list is not None:
            neighbor_list.count_rebuild()
        return _slots(found.center, found.other, found.reverse, n_atoms), found.vectors
    edges = _edges(systems, cutoff, neighbor_list)
    if device not in edges.memo:
        center, other, reverse = map(torch.from_numpy, (edges.center, edges.other, edges.reverse))
        edges.memo[device] = _slots(center.to(device), other.to(device), reverse.to(device), n_atoms)
    return edges.memo[device], torch.from_numpy(edges.vectors)


def _edges(systems: Sequence[Atoms], cutoff: Cutoff, neighbor_list: NeighborList | None = None) -> Edges:
    """The edges of a batch, atoms and edges counted through it."""
    parts = []
    for k, atoms in enumerate(systems):
        positions, cell, pbc = atoms.positions, atoms.cell.array, atoms.pbc
        if neighbor_list is None:
            parts.append(edges_of(atoms.numbers, positions, cell, pbc, cutoff))
        else:
            parts.append(neighbor_list.update(atoms.numbers, positions, cell, pbc))
        with _naming(k, len(systems)):
            check_sites(parts[-1])
    if len(parts) == 1:
        return parts[0]
    first_atom = np.repeat(_starts(systems), [len(part) for part in parts])
    first_edge = np.repeat(_starts(parts), [len(part) for part in parts])
    return Edges(
        center=np.concatenate([part.center for part in parts]) + first_atom,
        other=np.concatenate([part.other for part in parts]) + first_atom,
        offset=np.concatenate([part.offset for part in parts]),
        reverse=np.concatenate([part.reverse for part in parts]) + first_edge,
        vectors=np.concatenate([part.vectors for part in parts]),
    )


def _starts(parts: Sequence[Any]) -> Any:
    lengths = np.array([len(part) for part in parts])
    return np.cumsum(lengths) - lengths


def _volume(atoms: Atoms) -> float:
    return abs(float(np.linalg.det(atoms.cell.array))) if atoms.pbc.all() else float("nan")
