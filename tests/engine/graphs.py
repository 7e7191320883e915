"""Graphs of the tests of the engine."""

import torch
from small_models import STRUCTURES

from ase_andersonn.structures.graph import Graph, graph_from_atoms

TIGHT = 1e-24


def graph_of(*names: str, dtype: torch.dtype = torch.float64) -> Graph:
    return graph_from_atoms([STRUCTURES[name]() for name in names], 4.0, dtype=dtype)
