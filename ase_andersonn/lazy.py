"""Names of a package that are imported when they are first asked for, so that importing it loads no heavy library."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module

from .deprecated import warn_renamed


def lazy_names(
    package: str, homes: Mapping[str, str], former: Mapping[str, str] | None = None
) -> Callable[[str], object]:
    """The `__getattr__` of a package (PEP 562).

    Args:
        package: its `__name__`.
        homes: module of the package, as ".graph", of each of its names.
        former: likewise of names that are imported from their modules now, which gives a DeprecationWarning.
    """
    former = former or {}

    def find(name: str) -> object:
        if name in former:
            warn_renamed(f"{package}.{name}", f"{package}{former[name]}.{name}")
        elif name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}; its names are {', '.join(homes)}")
        value: object = getattr(import_module({**homes, **former}[name], package), name)
        setattr(sys.modules[package], name, value)
        return value

    return find
