"""Input structures: reading, conversion and checks, neighbour lists, and graphs as input of models."""

from typing import TYPE_CHECKING

from ase_andersonn.lazy import lazy_names

if TYPE_CHECKING:
    from .convert import check_atoms, to_atoms
    from .edge_list import graph_from_edges
    from .graph import Graph, bucket, graph_from_atoms, pad_edges
    from .neighbor_list import NeighborList
    from .neighbors import Edges, neighbor_edges
    from .samples import Sample, SampleBatch, collate, find_edges, make_sample

__all__ = [
    "Edges",
    "Graph",
    "NeighborList",
    "Sample",
    "SampleBatch",
    "bucket",
    "check_atoms",
    "collate",
    "find_edges",
    "graph_from_atoms",
    "graph_from_edges",
    "make_sample",
    "neighbor_edges",
    "pad_edges",
    "to_atoms",
]

_HOMES = {
    **dict.fromkeys(("check_atoms", "to_atoms"), ".convert"),
    "graph_from_edges": ".edge_list",
    **dict.fromkeys(("Graph", "bucket", "graph_from_atoms", "pad_edges"), ".graph"),
    "NeighborList": ".neighbor_list",
    **dict.fromkeys(("Edges", "neighbor_edges"), ".neighbors"),
    **dict.fromkeys(("Sample", "SampleBatch", "collate", "find_edges", "make_sample"), ".samples"),
}
__getattr__ = lazy_names(__name__, _HOMES)
