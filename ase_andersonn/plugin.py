"""``ase.plugins`` entry point: registers AndersoNN with ASE under the name ``andersonn``.

ASE 3.29 reads ``__ase_plugins__`` from the module of the entry point. Its plugin system is experimental and in a
private package, so without it, or after a change of its interface, the set is empty rather than breaking ``ase info``.
The calculator, and torch with it, is imported only when ASE loads its class.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .calculator import AndersoNN

NAME = "andersonn"


def register() -> type["AndersoNN"]:
    """Class of the calculator; its import registers it for ASE's ``get_calculator_class("andersonn")``."""
    from .calculator import AndersoNN

    return AndersoNN


def _ase_plugins() -> set[Any]:
    try:
        from ase._4.plugins.plugin import CalculatorPlugin

        return {CalculatorPlugin(name=NAME, citation="ase-andersonn developers", implementation=register)}
    except (ImportError, TypeError):
        return set()


def __getattr__(name: str) -> object:
    # ASE's plugin package loads this module while it is itself being imported. With an import at the top, ASE would
    # find an unfinished module and skip it if this module is imported first.
    if name == "__ase_plugins__":
        return _ase_plugins()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
