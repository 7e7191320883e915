"""Element properties as network inputs, from which predictions transfer to rare elements.

The values are fixed here rather than taken from a library, since weights are trained on them: a correction in a new
release would change the results of all models. Elements 1 to 103.
"""

from collections.abc import Iterable
from functools import cache

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# fmt: off
ELECTRONEGATIVITY = (
    2.20, 4.16, 0.98, 1.57, 2.04, 2.55, 3.04, 3.44, 3.98, 4.79, 0.93, 1.31, 1.61, 1.90, 2.19, 2.58, 3.16, 3.24, 0.82,
    1.00, 1.36, 1.54, 1.63, 1.66, 1.55, 1.83, 1.88, 1.91, 1.90, 1.65, 1.81, 2.01, 2.18, 2.55, 2.96, 3.00, 0.82, 0.95,
    1.22, 1.33, 1.60, 2.16, 1.90, 2.20, 2.28, 2.20, 1.93, 1.69, 1.78, 1.96, 2.05, 2.10, 2.66, 2.60, 0.79, 0.89, 1.10,
    1.12, 1.13, 1.14, 1.13, 1.17, 1.20, 1.20, 1.10, 1.22, 1.23, 1.24, 1.25, 1.10, 1.27, 1.30, 1.50, 2.36, 1.90, 2.20,
    2.20, 2.28, 2.54, 2.00, 1.62, 2.33, 2.02, 2.00, 2.20, 2.20, 0.70, 0.90, 1.10, 1.30, 1.50, 1.38, 1.36, 1.28, 1.30,
    1.30, 1.30, 1.30, 1.30, 1.30, 1.30, 1.30, 1.30,
)
"""Pauling electronegativity; Allen's for He, Ne and Ar, which have no value on Pauling's scale."""
IONIZATION = (
    13.60, 24.59, 5.39, 9.32, 8.30, 11.26, 14.53, 13.62, 17.42, 21.56, 5.14, 7.65, 5.99, 8.15, 10.49, 10.36, 12.97,
    15.76, 4.34, 6.11, 6.56, 6.83, 6.75, 6.77, 7.43, 7.90, 7.88, 7.64, 7.73, 9.39, 6.00, 7.90, 9.79, 9.75, 11.81,
    14.00, 4.18, 5.69, 6.22, 6.63, 6.76, 7.09, 7.12, 7.36, 7.46, 8.34, 7.58, 8.99, 5.79, 7.34, 8.61, 9.01, 10.45,
    12.13, 3.89, 5.21, 5.58, 5.54, 5.47, 5.53, 5.58, 5.64, 5.67, 6.15, 5.86, 5.94, 6.02, 6.11, 6.18, 6.25, 5.43, 6.83,
    7.55, 7.86, 7.83, 8.44, 8.97, 8.96, 9.23, 10.44, 6.11, 7.42, 7.29, 8.42, 9.32, 10.75, 4.07, 5.28, 5.38, 6.31,
    5.89, 6.19, 6.27, 6.03, 5.97, 5.99, 6.20, 6.28, 6.37, 6.50, 6.58, 6.63, 4.96,
)
"""First ionisation energy, eV (NIST)."""
AFFINITY = (
    0.75, -0.52, 0.62, -0.52, 0.28, 1.26, -0.07, 1.46, 3.40, -1.22, 0.55, -0.42, 0.43, 1.39, 0.75, 2.08, 3.61, -1.02,
    0.50, 0.02, 0.18, 0.08, 0.53, 0.68, -0.52, 0.15, 0.66, 1.16, 1.24, -0.62, 0.30, 1.23, 0.80, 2.02, 3.36, -1.02,
    0.49, 0.05, 0.31, 0.43, 0.92, 0.75, 0.55, 1.05, 1.14, 0.56, 1.30, -0.72, 0.38, 1.11, 1.05, 1.97, 3.06, -0.82,
    0.47, 0.14, 0.56, 0.60, 0.11, 0.10, 0.13, 0.16, 0.12, 0.21, 0.13, 0.02, 0.34, 0.31, 1.03, -0.02, 0.24, 0.18, 0.33,
    0.82, 0.06, 1.08, 1.56, 2.13, 2.31, -0.52, 0.32, 0.36, 0.94, 1.41, 2.42, -0.72, 0.49, 0.10, 0.35, 0.61, 0.55,
    0.31, 0.48, -0.50, 0.10, 0.28, -1.72, -1.01, -0.30, 0.35, 0.98, -2.33, -0.31,
)
"""Electron affinity, eV; computed for atoms that bind no electron, otherwise measured."""
# fmt: on

N_ELEMENTS = len(ELECTRONEGATIVITY)
CLOSED_SHELLS = (0, 2, 10, 18, 36, 54, 86, 118)
"""Numbers of electrons of closed-shell (noble gas) cores."""
CAPACITY = {"s": 2, "p": 6, "d": 10, "f": 14}
PROPERTIES = (
    "electronegativity",
    "ionization",
    "affinity",
    "radius",
    "period",
    "group",
    "valence s",
    "valence p",
    "valence d",
    "valence f",
)
"""Names of the columns of `element_properties`."""


def period(number: int) -> int:
    """Row of the periodic table."""
    return next(row for row, end in enumerate(CLOSED_SHELLS) if number <= end)


def valence(number: int) -> tuple[int, int, int, int]:
    """Valence electrons in s, p, d and f outside the closed core, filled in Madelung order (Cr is s² d⁴)."""
    row = period(number)
    left = number - CLOSED_SHELLS[row - 1]
    order = {1: "s", 2: "sp", 3: "sp", 4: "sdp", 5: "sdp"}.get(row, "sfdp")
    filled = dict.fromkeys(CAPACITY, 0)
    for shell in order:
        filled[shell] = min(left, CAPACITY[shell])
        left -= filled[shell]
    return filled["s"], filled["p"], filled["d"], filled["f"]


def group(number: int) -> int:
    """Column of the periodic table, 1 to 18; 3 for all lanthanoids and actinoids, 18 for helium."""
    s, p, d, f = valence(number)
    if p or number == 2:
        return 12 + p if p else 18
    return 3 if f > 0 and d < 2 else s + d


@cache
def element_properties() -> Floats:
    """Standardized properties of all elements [N_ELEMENTS + 1, n_properties]; row 0 is 0.

    The array is cached: do not modify it.
    """
    numbers = range(1, N_ELEMENTS + 1)
    columns = [ELECTRONEGATIVITY, IONIZATION, AFFINITY, covalent_radii[1 : N_ELEMENTS + 1]]
    columns += [[period(z) for z in numbers], [group(z) for z in numbers], *zip(*map(valence, numbers), strict=True)]
    table = np.array(columns, np.float64).T
    table = (table - table.mean(0)) / table.std(0)
    return np.concatenate([np.zeros((1, table.shape[1])), table])


def element_names(numbers: Iterable[int]) -> str:
    """Symbols in a line, five and more consecutive elements as a range: "H, C–F, Fe"."""
    runs: list[list[str]] = []
    before = None
    for z in sorted(numbers):
        symbol = chemical_symbols[z] if 0 < z < len(chemical_symbols) else f"Z={z}"
        if before != z - 1:
            runs.append([])
        runs[-1].append(symbol)
        before = z
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 4 else ", ".join(run) for run in runs)
