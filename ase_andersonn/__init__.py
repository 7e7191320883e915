"""Interatomic potentials that are one layer at its fixed point, found with Anderson acceleration.

``import ase_andersonn`` loads neither torch nor ASE; the public names are imported when they are first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .calculator import AndersoNN
    from .checkpoints.checkpoint import load_model, save_model
    from .classifier import StructureClassifier
    from .mc import MetropolisMC

__version__ = "0.2.0"
__all__ = ["AndersoNN", "MetropolisMC", "StructureClassifier", "load_model", "save_model"]

_HOME = {
    "AndersoNN": "ase_andersonn.calculator",
    "MetropolisMC": "ase_andersonn.mc",
    "StructureClassifier": "ase_andersonn.classifier",
    "load_model": "ase_andersonn.checkpoints.checkpoint",
    "save_model": "ase_andersonn.checkpoints.checkpoint",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; its public names are {', '.join(_HOME)}")
    value: object = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
