"""Label sets of classifiers: a quantity, thresholds, and a label for each interval between them.

label k:  t_(k-1) < value ≤ t_k,    t_(-1) = −∞,  t_K = ∞
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class LabelSet:
    """Labels of the intervals of one quantity.

    Args:
        name: name of the set, as on the command line.
        labels: labels of the intervals, in ascending order of values.
        thresholds: upper bounds of all intervals but the last, ascending; a value equal to a threshold has the lower
            label.
        unit: unit of thresholds and values.
        quantity: description of the quantity.
        minimum: lowest valid value.

    Raises:
        ValueError: for invalid labels or thresholds.
    """

    name: str
    labels: tuple[str, ...]
    thresholds: tuple[float, ...]
    unit: str
    quantity: str = "value"
    minimum: float = -1e300

    def __post_init__(self) -> None:
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels) or not all(self.labels):
            raise ValueError(f"labels is {self.labels}; give at least two names, all different and none empty.")
        if len(self.thresholds) != len(self.labels) - 1:
            raise ValueError(
                f"{len(self.labels)} labels need {len(self.labels) - 1} thresholds between them; "
                f"{len(self.thresholds)} were given: {self.thresholds}."
            )
        ascending = all(a < b for a, b in zip(self.thresholds, self.thresholds[1:], strict=False))
        if not ascending or not all(math.isfinite(t) for t in self.thresholds):
            raise ValueError(f"thresholds is {self.thresholds}; they have to be finite and ascending.")
        if self.thresholds[0] < self.minimum:
            raise ValueError(f"the threshold {self.thresholds[0]} is below the minimum, {self.minimum} {self.unit}.")

    def __len__(self) -> int:
        return len(self.labels)

    def label_of(self, value: float) -> int:
        """Index of the label of a value.

        Raises:
            ValueError: for a value that is not finite or below the minimum.
        """
        if not math.isfinite(value):
            raise ValueError(f"the {self.quantity} is {value}; it has to be a finite number of {self.unit}.")
        if value < self.minimum:
            raise ValueError(f"the {self.quantity} is {value} {self.unit}; it cannot be below {self.minimum}.")
        return sum(value > threshold for threshold in self.thresholds)

    def index(self, label: str) -> int:
        """Index of a label by its name.

        Raises:
            ValueError: for a name that is not in the set.
        """
        if label not in self.labels:
            raise ValueError(f"{label!r} is not a label of {self.name!r}; its labels are {', '.join(self.labels)}.")
        return self.labels.index(label)

    def at(self, *thresholds: float) -> "LabelSet":
        """Same labels with other last thresholds: `ELECTRONIC.at(2.0)` has insulators above a gap of 2 eV."""
        if not 0 < len(thresholds) <= len(self.thresholds):
            raise ValueError(
                f"{len(thresholds)} thresholds were given; {self.name!r} has {len(self.thresholds)}: {self.thresholds}."
            )
        return replace(self, thresholds=(*self.thresholds[: -len(thresholds)], *map(float, thresholds)))


ELECTRONIC = LabelSet("electronic", ("metal", "semiconductor", "insulator"), (0.0, 3.0), "eV", "band gap", 0.0)
"""A metal has no gap, an insulator one above 3 eV; for 2 or 4 eV, which are also common, use `ELECTRONIC.at(2.0)`."""
POLARITY = LabelSet("polarity", ("weakly polar", "strongly polar"), (2.5,), "D", "dipole moment", 0.0)
"""Molecules by the norm of their dipole moment."""
PORE_SIZE = LabelSet("pore-size", ("small pores", "large pores"), (5.76,), "Å", "largest cavity diameter", 0.0)
"""Frameworks by their largest included sphere; the threshold is the median of CoRE MOF 2019."""
PORE_SIZE_3 = LabelSet(
    "pore-size-3", ("small pores", "medium pores", "large pores"), (5.0, 8.0), "Å", "largest cavity diameter", 0.0
)
"""Pore size in three classes."""
LABEL_SETS = {labels.name: labels for labels in (ELECTRONIC, POLARITY, PORE_SIZE, PORE_SIZE_3)}


def label_set(name: str, thresholds: Sequence[float] = ()) -> LabelSet:
    """Label set of the package by name, with other last thresholds if some are given.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in LABEL_SETS:
        raise ValueError(f"there is no label set {name!r}; the package's are {', '.join(LABEL_SETS)}.")
    return LABEL_SETS[name].at(*thresholds) if thresholds else LABEL_SETS[name]
