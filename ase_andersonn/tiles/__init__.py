"""Tiled energies: memory is bounded by a batch of tiles, and a local change costs only the tiles around it."""

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
