"""Deprecated names of version 0.1, which give a DeprecationWarning and will be removed in the next version."""

import warnings
from collections.abc import Mapping
from typing import Any

DIAGNOSTICS = {"energy_spread": "energy_std", "forces_spread": "forces_std", "stress_spread": "stress_std"}
"""Former and current keys of `AndersoNN.diagnostics`."""
CALCULATOR_METHODS = {
    "propose": "trial_energy",
    "settle": "commit",
    "propose_each": "trial_energy_changes",
    "settle_each": "commit_each",
}
"""Former and current methods of `mc.LocalEnergy` and `mc.ManyLocalEnergies`."""
MOVE_METHODS = {"may_change": "is_allowed", "redraw": "sample"}
"""Former and current methods of moves that `mc.Sublattice` makes."""


def warn_renamed(old: str, new: str) -> None:
    """Give a DeprecationWarning at the line that uses the old name."""
    warnings.warn(f"{old} is called {new} now.", DeprecationWarning, stacklevel=3)


class RenamedKeys(dict[str, Any]):
    """Dictionary that can also be read by former keys.

    Args:
        data: items of the dictionary.
        names: former and current keys.
    """

    def __init__(self, data: Mapping[str, Any], names: Mapping[str, str]) -> None:
        super().__init__(data)
        self._names = names

    def __missing__(self, key: str) -> Any:
        if key not in self:
            raise KeyError(key)
        warn_renamed(key, self._names[key])
        return self[self._names[key]]

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or super().__contains__(self._names.get(str(key)))

    def get(self, key: str, default: Any = None) -> Any:
        """See `dict.get`."""
        try:
            return self[key]
        except KeyError:
            return default


def renamed_method(old: str, new: str) -> Any:
    """Method of a former name, which calls the current one."""

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        warn_renamed(f"{type(self).__name__}.{old}", new)
        return getattr(self, new)(*args, **kwargs)

    return method


def rename_overrides(cls: type, names: Mapping[str, str]) -> None:
    """Give methods that a subclass defines by their former names the current ones."""
    for old, new in names.items():
        if old in vars(cls) and new not in vars(cls):
            warn_renamed(f"{cls.__name__}.{old}", new)
            setattr(cls, new, vars(cls)[old])


def renamed_methods(calculator: Any, names: Mapping[str, str]) -> None:
    """Add methods of the current names to an object with methods of the former ones."""
    for old, new in names.items():
        if hasattr(calculator, old) and not hasattr(calculator, new):
            warn_renamed(f"{type(calculator).__name__}.{old}", new)
            setattr(calculator, new, getattr(calculator, old))
