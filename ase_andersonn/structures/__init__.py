"""Structures as tensors: conversion and checks, neighbour lists, and the graph that models take."""

from typing import TYPE_CHECKING

from ase_andersonn.lazy import lazy_names

if TYPE_CHECKING:
    from .convert import check_atoms, to_atoms
    from .graph import Graph, bucket, graph_from_atoms, graph_from_batch, pad_edges, to_data
    from .neighbors import Edges, NeighborList, neighbor_edges

__all__ = [
    "Edges",
    "Graph",
    "NeighborList",
    "bucket",
    "check_atoms",
    "graph_from_atoms",
    "graph_from_batch",
    "neighbor_edges",
    "pad_edges",
    "to_atoms",
    "to_data",
]

_GRAPH = ("Graph", "bucket", "graph_from_atoms", "graph_from_batch", "pad_edges", "to_data")
_HOMES = {
    **dict.fromkeys(("check_atoms", "to_atoms"), ".convert"),
    **dict.fromkeys(_GRAPH, ".graph"),
    **dict.fromkeys(("Edges", "NeighborList", "neighbor_edges"), ".neighbors"),
}
__getattr__ = lazy_names(__name__, _HOMES)
