"""Samples of data sets: structures with edges as torch_geometric Data, and their collation to one graph.

Importing this module imports torch_geometric, which takes about a second.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from ase import Atoms
from torch import Tensor
from torch_geometric.data import Batch, Data  # type: ignore[import-untyped]

from .convert import check_atoms, check_sites
from .graph import Graph, pad_edges
from .metadata import total_charge
from .neighbors import Cutoff, Edges, edges_of

GRAPH_FIELDS = ("numbers", "pos", "cell", "pbc", "charge", "center", "other", "reverse", "vectors")


class Sample(Data):  # type: ignore[misc]
    """Structure with its edges and further fields, with one row per atom, edge or structure.

    ``numbers`` int64 [n_atoms], ``pos`` float64 [n_atoms, 3], ``cell`` float64 [1, 3, 3], ``pbc`` [1, 3], ``charge``
    float64 [1]; ``center``, ``other`` and ``reverse`` int32 [n_edges], ``vectors`` [n_edges, 3], as in `Edges`. Indices
    are shifted in batches.
    """

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        if key in ("center", "other"):
            return self.num_nodes
        return len(self.center) if key == "reverse" else 0

    def __cat_dim__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        return 0


class SampleBatch(NamedTuple):
    """Several samples as one graph, and their concatenated further fields."""

    graph: Graph
    fields: dict[str, Tensor]


def find_edges(atoms: Atoms, cutoff: Cutoff) -> Edges:
    """Edges of a structure, after checking it.

    Raises:
        ValueError: for a structure without a defined energy (see `check_atoms`).
    """
    check_atoms(atoms, sites=False)
    edges = edges_of(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
    check_sites(edges)
    return edges


def make_sample(atoms: Atoms, edges: Edges, *, dtype: torch.dtype = torch.float64, **fields: Tensor) -> Sample:
    """Create the sample of a structure.

    Args:
        atoms: the structure.
        edges: see `find_edges`.
        dtype: precision of the stored vectors.
        **fields: further fields, with a first axis over atoms or edges, or of length 1.
    """
    center, other, reverse = (torch.tensor(x, dtype=torch.int32) for x in (edges.center, edges.other, edges.reverse))
    return Sample(
        numbers=torch.tensor(atoms.numbers, dtype=torch.int64),
        pos=torch.tensor(atoms.positions, dtype=torch.float64),
        cell=torch.tensor(atoms.cell.array, dtype=torch.float64)[None],
        pbc=torch.tensor(atoms.pbc)[None],
        charge=torch.tensor([total_charge(atoms)], dtype=torch.float64),
        center=center,
        other=other,
        reverse=reverse,
        vectors=torch.tensor(edges.vectors, dtype=dtype),
        num_nodes=len(atoms),
        **fields,
    )


def collate(
    samples: Sequence[Sample], *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> SampleBatch:
    """Collate samples to one batch.

    Args:
        samples: samples with equal fields.
        dtype: precision of the graph; that of further fields is unchanged.
        device: device of the batch, on which the padded matrix is made.
    """
    batch: Any = Batch.from_data_list(list(samples)).to(device)
    vectors, neighbors, mask, reverse = pad_edges(
        batch.center.long(), batch.other.long(), batch.reverse.long(), batch.vectors.to(dtype), len(batch.numbers)
    )
    graph = Graph(
        numbers=batch.numbers,
        vectors=vectors,
        neighbors=neighbors,
        mask=mask,
        reverse=reverse,
        system=batch.batch,
        n_systems=len(samples),
        volume=torch.where(batch.pbc.all(1), torch.linalg.det(batch.cell).abs(), torch.nan).to(dtype),
        n_per_system=batch.ptr.diff(),
        positions=batch.pos.to(dtype),
        cell=batch.cell.to(dtype),
        charge=batch.charge.to(dtype),
    )
    further = [key for key in samples[0].keys() if key not in (*GRAPH_FIELDS, "num_nodes")]  # noqa: SIM118
    return SampleBatch(graph, {key: batch[key] for key in further})
