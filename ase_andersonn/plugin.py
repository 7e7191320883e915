"""The ``ase.plugins`` entry point: makes AndersoNN known to ASE under the name ``andersonn``.

ASE 3.29 looks for ``__ase_plugins__`` in the module that the entry point names. Its plugin system is experimental and
lives in a private package, so its absence or a change of its interface leaves the set empty instead of breaking
``ase info``. The calculator, and torch with it, is imported only when ASE asks the plugin for its class.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .calculator import AndersoNN

NAME = "andersonn"


def register() -> type["AndersoNN"]:
    """The calculator's class, whose import makes ``get_calculator_class("andersonn")`` of ASE work."""
    from .calculator import AndersoNN

    return AndersoNN


def _ase_plugins() -> set[Any]:
    try:
        from ase._4.plugins.plugin import CalculatorPlugin

        return {CalculatorPlugin(name=NAME, citation="ase-andersonn developers", implementation=register)}
    except (ImportError, TypeError):
        return set()


def __getattr__(name: str) -> object:
    # ASE's plugin package loads this module while it is itself being imported. Importing it from here at the top would
    # make ASE read an unfinished module, and pass it over, whenever this module comes first.
    if name == "__ase_plugins__":
        return _ase_plugins()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
