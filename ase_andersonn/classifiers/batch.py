"""What a graph classifier needs of structures: each as a sample, several as a batch with its neighbour matrix."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from ase import Atoms
from torch import Tensor

from ase_andersonn.solvers import Segments
from ase_andersonn.structures.convert import check_atoms, check_lengths, check_sites
from ase_andersonn.structures.graph import pad_edges
from ase_andersonn.structures.neighbors import neighbor_edges

from .features.composition import composition_features
from .features.pores import pore_features


class GraphSample(NamedTuple):
    """One structure: atoms, edges (`structures.neighbors.Edges`), composition, voids; on the CPU."""

    numbers: Tensor
    center: Tensor
    other: Tensor
    reverse: Tensor
    vectors: Tensor
    composition: Tensor
    positions: Tensor
    """From the centre of a molecule [n_atoms, 3], Å; 0 in what repeats."""
    pores: Tensor
    """Void features; none where the config asks for none."""


PER_STRUCTURE = ("composition", "pores")
"""Fields of a sample that are one row a structure; the others have one an atom or an edge."""


class GraphBatch(NamedTuple):
    """Structures with their neighbour matrix, as in `structures.graph.Graph`."""

    numbers: Tensor
    vectors: Tensor
    neighbors: Tensor
    mask: Tensor
    reverse: Tensor
    segments: Segments
    composition: Tensor
    positions: Tensor
    pores: Tensor


def graph_sample(structure: Atoms, cutoff: float, *, pores: bool) -> GraphSample:
    """A structure as a sample.

    Args:
        structure: the structure.
        cutoff: Å.
        voids: whether to compute the void features.

    Raises:
        ValueError: for a structure without a meaning.
    """
    check_atoms(structure, sites=False)
    edges = neighbor_edges(structure.positions, structure.cell.array, structure.pbc, cutoff)
    check_sites(edges)
    check_lengths(structure.numbers, edges)
    composition = composition_features(structure)
    empty_space = pore_features(structure) if pores else ()
    positions = structure.positions - structure.positions.mean(0)
    if structure.pbc.any():
        positions = 0.0 * positions
    indices = (torch.tensor(x, dtype=torch.int32) for x in (edges.center, edges.other, edges.reverse))
    return GraphSample(
        torch.tensor(structure.numbers, dtype=torch.int64),
        *indices,
        *(torch.tensor(x, dtype=torch.float32) for x in (edges.vectors, composition, positions, empty_space)),
    )


def collate_graphs(samples: Sequence[GraphSample], device: torch.device, dtype: torch.dtype) -> GraphBatch:
    """Samples as one batch on a device and in a precision."""
    n_atoms = torch.tensor([len(s.numbers) for s in samples])
    n_edges = torch.tensor([len(s.center) for s in samples])
    first_atom = (n_atoms.cumsum(0) - n_atoms).repeat_interleave(n_edges)
    first_edge = (n_edges.cumsum(0) - n_edges).repeat_interleave(n_edges)
    numbers, center, other, reverse, vectors, composition, positions, pores = (
        torch.stack(parts) if name in PER_STRUCTURE else torch.cat(parts)
        for name, parts in zip(GraphSample._fields, zip(*samples, strict=True), strict=True)
    )
    padded, neighbors, mask, backward = pad_edges(
        (center + first_atom).to(device),
        (other + first_atom).to(device),
        (reverse + first_edge).to(device),
        vectors.to(device, dtype),
        len(numbers),
    )
    system = torch.arange(len(samples)).repeat_interleave(n_atoms).to(device)
    return GraphBatch(
        numbers.to(device),
        padded,
        neighbors,
        mask,
        backward,
        Segments(system, len(samples)),
        composition.to(device, dtype),
        positions.to(device, dtype),
        pores.to(device, dtype),
    )
