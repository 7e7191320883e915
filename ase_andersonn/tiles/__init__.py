"""Energies as sums over tiles of space: memory bounded by a tile, changes that cost what they touch."""

from .accuracy import choose_tiles, context_for, decay
from .memory import available_memory, estimate_memory
from .settings import Tiles
from .tiled import Tiled

__all__ = [
    "Tiled",
    "Tiles",
    "available_memory",
    "choose_tiles",
    "context_for",
    "decay",
    "estimate_memory",
]
