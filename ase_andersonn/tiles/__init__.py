"""Tiled energies: memory is bounded by a batch of tiles, and a local change costs only the tiles around it."""

from ase_andersonn.deprecated import warn_renamed

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


def __getattr__(name: str) -> object:
    if name == "Tiled":
        warn_renamed("Tiled", "TiledEvaluator")
        return TiledEvaluator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
