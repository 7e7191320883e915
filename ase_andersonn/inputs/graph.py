"""Structures as tensors: the padded neighbour matrix of a whole batch.

    vectors[i, k] = positions[j] + offset @ cell - positions[i],    j = neighbors[i, k]

computed in float64 and rounded once to the model's precision. The number of neighbours is padded up to a bucket, so
that compiled code is not compiled again as it moves. torch_geometric carries graphs between data sets and loaders; it
is imported only by what needs it, since that takes a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress
from torch import Tensor

from .convert import check_atoms, check_sites
from .neighbors import Edges, NeighborList, neighbor_edges

if TYPE_CHECKING:
    from torch_geometric.data import Batch, Data  # type: ignore[import-untyped]

BUCKET = 8


@dataclass(frozen=True, eq=False)
class Graph:
    """A batch of structures with their neighbour matrix.

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

    @property
    def n_atoms(self) -> int:
        return self.vectors.shape[0]

    @property
    def n_neighbors(self) -> int:
        return self.vectors.shape[1]

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Graph:
        """The graph on a device, its vectors and volumes in a precision."""
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        moved |= {name: moved[name].to(dtype) for name in ("vectors", "volume") if dtype is not None}
        return replace(self, **moved)


def bucket(n_neighbors: int) -> int:
    """The padded number of neighbours, ``BUCKET * max(1, ceil(n / BUCKET))``."""
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
    count = torch.bincount(center, minlength=n_atoms)
    n_neighbors = bucket(int(count.max())) if n_atoms else BUCKET
    column = torch.arange(n_neighbors, device=center.device)
    mask = column < count[:, None]
    slot = mask.flatten().nonzero().squeeze(1)
    own = torch.arange(n_atoms, device=center.device)[:, None]
    neighbors = own.repeat(1, n_neighbors)
    backward = own * n_neighbors + column
    padded = vectors.new_zeros(n_atoms, n_neighbors, 3)
    neighbors.view(-1)[slot] = other
    backward.view(-1)[slot] = slot[reverse]
    padded.view(-1, 3)[slot] = vectors
    return padded, neighbors, mask, backward


def graph_from_atoms(
    atoms: Atoms | Sequence[Atoms],
    cutoff: float,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    neighbor_list: NeighborList | None = None,
) -> Graph:
    """The graph of one structure, or of several as one batch.

    Args:
        atoms: structures.
        cutoff: Å.
        dtype: precision of the vectors.
        device: where the graph lives; the padded matrix is made there.
        neighbor_list: list kept between calls, for one structure that moves.

    Raises:
        ValueError: for a structure that has no graph (see `check_atoms`), and for a neighbour list of another cutoff or
            with several structures.
    """
    systems = [atoms] if isinstance(atoms, Atoms) else list(atoms)
    if neighbor_list is not None and len(systems) != 1:
        raise ValueError(f"a neighbour list follows one structure; {len(systems)} were given. Leave it out.")
    if neighbor_list is not None and neighbor_list.cutoff != cutoff:
        raise ValueError(f"the neighbour list was made for {neighbor_list.cutoff} Å, the graph needs {cutoff} Å.")
    if not systems:
        raise ValueError("no structures were given; a graph needs at least one.")
    edges = [_checked_edges(system, cutoff, neighbor_list) for system in systems]
    n_per_system = np.array([len(system) for system in systems])
    atom_start = np.concatenate(([0], np.cumsum(n_per_system)))
    edge_start = np.concatenate(([0], np.cumsum([len(e) for e in edges])))
    center = np.concatenate([e.center + start for e, start in zip(edges, atom_start, strict=False)])
    other = np.concatenate([e.other + start for e, start in zip(edges, atom_start, strict=False)])
    reverse = np.concatenate([e.reverse + start for e, start in zip(edges, edge_start, strict=False)])
    vectors = np.concatenate([e.vectors for e in edges])
    n_atoms = int(atom_start[-1])
    padded = pad_edges(
        torch.from_numpy(center).to(device),
        torch.from_numpy(other).to(device),
        torch.from_numpy(reverse).to(device),
        torch.from_numpy(vectors).to(dtype).to(device),
        n_atoms,
    )
    return _graph(
        np.concatenate([system.numbers for system in systems]),
        padded,
        np.repeat(np.arange(len(systems)), n_per_system),
        np.array([_volume(system.cell.array, system.pbc) for system in systems]),
        n_per_system,
        dtype,
        device,
    )


def _graph(
    numbers: Any, padded: tuple[Tensor, ...], system: Any, volume: Any, n_per_system: Any, dtype: Any, device: Any
) -> Graph:
    vectors, neighbors, mask, reverse = padded
    return Graph(
        numbers=torch.as_tensor(numbers, dtype=torch.int64, device=device),
        vectors=vectors,
        neighbors=neighbors,
        mask=mask,
        reverse=reverse,
        system=torch.as_tensor(system, dtype=torch.int64, device=device),
        n_systems=len(n_per_system),
        volume=torch.as_tensor(volume, dtype=dtype, device=device),
        n_per_system=torch.as_tensor(n_per_system, dtype=torch.int64, device=device),
    )


def _checked_edges(atoms: Atoms, cutoff: float, neighbor_list: NeighborList | None) -> Edges:
    check_atoms(atoms, sites=False)
    if neighbor_list is None:
        edges = neighbor_edges(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
    else:
        edges = neighbor_list.update(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
    check_sites(edges)
    return edges


def _volume(cell: Any, pbc: Any) -> float:
    return abs(float(np.linalg.det(cell))) if all(pbc) else float("nan")


@cache
def _edge_data() -> Any:
    """The Data class of `to_data`, made when torch_geometric is first needed."""
    from torch_geometric.data import Data

    class EdgeData(Data):  # type: ignore[misc]
        """A structure with its edges; batching shifts the indices of atoms and of edges."""

        def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
            if key in ("center", "other"):
                return self.num_nodes
            if key == "reverse":
                return self.center.numel()
            return 0

        def __cat_dim__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
            return 0

    return EdgeData


def to_data(atoms: Atoms, cutoff: float) -> Data:
    """The structure with its edges as a torch_geometric Data, for data sets and loaders.

    Fields: ``numbers``, ``pos`` [n_atoms, 3], ``cell`` [1, 3, 3], ``pbc`` [1, 3]; ``center``, ``other``, ``offset``,
    ``reverse`` as in `Edges`; and, where the attached calculator holds them, the labels ``energy`` [1], ``forces``
    [n_atoms, 3], ``stress`` [1, 3, 3]. Everything in float64.

    Raises:
        ValueError: for a structure that has no graph (see `check_atoms`).
    """
    edges = _checked_edges(atoms, cutoff, None)
    return _edge_data()(
        numbers=torch.tensor(atoms.numbers, dtype=torch.int64),
        pos=torch.tensor(atoms.positions, dtype=torch.float64),
        cell=torch.tensor(atoms.cell.array, dtype=torch.float64)[None],
        pbc=torch.tensor(atoms.pbc)[None],
        center=torch.from_numpy(edges.center),
        other=torch.from_numpy(edges.other),
        offset=torch.from_numpy(edges.offset),
        reverse=torch.from_numpy(edges.reverse),
        num_nodes=len(atoms),
        **_labels(atoms),
    )


def _labels(atoms: Atoms) -> dict[str, Tensor]:
    found = {}
    if atoms.calc is not None:
        for name in ("energy", "forces", "stress"):
            value = atoms.calc.get_property(name, atoms, allow_calculation=False)
            if value is not None:
                found[name] = np.asarray(value, np.float64)
    if "energy" in found:
        found["energy"] = found["energy"].reshape(1)
    if "stress" in found:
        stress = found["stress"]
        found["stress"] = (voigt_6_to_full_3x3_stress(stress) if stress.shape == (6,) else stress).reshape(1, 3, 3)
    return {name: torch.tensor(value) for name, value in found.items()}


def graph_from_batch(batch: Batch, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Graph:
    """The graph of a torch_geometric Batch (or single Data) made of what `to_data` returns."""
    data: Any = batch
    system = data.batch if getattr(data, "batch", None) is not None else torch.zeros_like(data.numbers)
    center, other, reverse = data.center.to(device), data.other.to(device), data.reverse.to(device)
    pos, cell, pbc = data.pos.to(device), data.cell.to(device), data.pbc.to(device)
    system = system.to(device)
    shift = (data.offset.to(device, pos.dtype)[:, None] @ cell[system[center]]).squeeze(1)
    vectors = (pos[other] - pos[center] + shift).to(dtype)
    periodic = pbc.all(1)
    volume = torch.where(periodic, torch.linalg.det(cell).abs(), torch.nan)
    n_per_system = torch.bincount(system, minlength=len(cell))
    padded = pad_edges(center, other, reverse, vectors, len(pos))
    return _graph(data.numbers, padded, system, volume, n_per_system, dtype, device)
