"""Architectures by name: those of this package, and those that other packages register.

A package adds an architecture with an entry point of the group `ase_andersonn.architectures`, whose name is that of the
class and whose value the module that defines it, as in `MyModel = "my_package.my_model"`. A class that is imported
already needs none.
"""

from importlib import import_module
from importlib.metadata import entry_points
from typing import TypeVar

from ase_andersonn.config import subclass_named

T = TypeVar("T")

ARCHITECTURES = {
    "DEQAttention": "ase_andersonn.potentials.deq_attention",
    "DEQCartesian": "ase_andersonn.potentials.deq_cartesian",
    "GridModel": "ase_andersonn.lattice.model",
    "ImageModel": "ase_andersonn.lattice.density_model",
    "GraphClassifier": "ase_andersonn.classifiers.graph_classifier",
    "ImageClassifier": "ase_andersonn.classifiers.image_classifier",
}
"""Names and modules of this package's architectures."""
GROUP = "ase_andersonn.architectures"
"""Entry points of other packages."""


def architecture(base: type[T], name: str) -> type[T]:
    """The class of an architecture, whose module is imported.

    Args:
        base: what it has to derive from.
        name: of the class.

    Raises:
        ValueError: if there is none of that name; the text names the nearest one.
    """
    if name in ARCHITECTURES:
        import_module(ARCHITECTURES[name])
    else:
        for module in ARCHITECTURES.values():  # so that the error can name the nearest
            import_module(module)
        for entry in entry_points(group=GROUP, name=name):
            entry.load()
    return subclass_named(base, name)
