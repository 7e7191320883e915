"""Names of an earlier version, which go on working with a DeprecationWarning until the next one."""

import warnings
from collections.abc import Mapping
from typing import Any

DIAGNOSTICS = {"energy_spread": "energy_std", "forces_spread": "forces_std", "stress_spread": "stress_std"}
"""Keys of `AndersoNN.diagnostics`, and what they are now."""
CALCULATOR_METHODS = {
    "propose": "trial_energy",
    "settle": "commit",
    "propose_each": "trial_energy_changes",
    "settle_each": "commit_each",
}
"""Methods of calculators for Monte Carlo, see `mc.LocalEnergy` and `mc.ManyLocalEnergies`, and what they are now."""


def warn_renamed(old: str, new: str) -> None:
    """A DeprecationWarning at the line that used the old name."""
    warnings.warn(f"{old} is called {new} now.", DeprecationWarning, stacklevel=3)


class RenamedKeys(dict[str, Any]):
    """A dictionary whose values can also be asked for by earlier keys.

    Args:
        data: its items.
        names: earlier keys and the present ones.
    """

    def __init__(self, data: Mapping[str, Any], names: Mapping[str, str]) -> None:
        super().__init__(data)
        self._names = names

    def __missing__(self, key: str) -> Any:
        if self._names.get(key) not in self:
            raise KeyError(key)
        warn_renamed(key, self._names[key])
        return self[self._names[key]]


def renamed_methods(calculator: Any, names: Mapping[str, str]) -> None:
    """Give an object that has methods of earlier names those of the present ones."""
    for old, new in names.items():
        if hasattr(calculator, old) and not hasattr(calculator, new):
            warn_renamed(f"{type(calculator).__name__}.{old}", new)
            setattr(calculator, new, getattr(calculator, old))
