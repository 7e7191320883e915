"""Monte Carlo moves."""

from .base import Adaptive, Move, Trial
from .cell import CellChange, VolumeChange
from .displacement import Displacement
from .exchange import Exchange
from .species import SpeciesSwap, Transmutation
from .spin import SpinFlip

__all__ = [
    "Adaptive",
    "CellChange",
    "Displacement",
    "Exchange",
    "Move",
    "SpeciesSwap",
    "SpinFlip",
    "Transmutation",
    "Trial",
    "VolumeChange",
]
