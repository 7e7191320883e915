"""Energies as sums over tiles of space: memory bounded by a tile, changes that cost what they touch."""

from .accuracy import choose_tiles, context_for, decay
from .evaluator import TiledEvaluator
from .memory import available_memory, estimate_memory
from .settings import Tiles

__all__ = [
    "TiledEvaluator",
    "Tiles",
    "available_memory",
    "choose_tiles",
    "context_for",
    "decay",
    "estimate_memory",
]
