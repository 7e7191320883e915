"""Tiled energies: memory is bounded by a batch of tiles, and a local change costs only the tiles around it."""

from ase_andersonn.deprecated import warn_renamed
from ase_andersonn.lazy import lazy_names

from .accuracy import choose_tiles, context_for
from .evaluator import TiledEvaluator
from .settings import Tiles

__all__ = ["TiledEvaluator", "Tiles", "choose_tiles", "context_for"]

_FORMER = {"decay": ".accuracy", **dict.fromkeys(("available_memory", "estimate_memory"), ".memory")}
_find = lazy_names(__name__, {}, _FORMER)


def __getattr__(name: str) -> object:
    if name == "Tiled":
        warn_renamed("Tiled", "TiledEvaluator")
        return TiledEvaluator
    return _find(name)
