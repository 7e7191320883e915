"""Features of composition and density, independent of the choice of cell.

Mean, standard deviation and extremes of element properties over the atoms, and chemical rules: charge balance of common
oxidation states, filling of octets by the electropositive atoms, ionicity of bonds. The type of features follows Ward
et al., npj Comput. Mater. 2, 16028 (2016).
"""

import itertools
import math
from functools import cache, reduce

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii
from numpy.typing import NDArray

from ase_andersonn.structures.elements import CAPACITY, ELECTRONEGATIVITY, N_ELEMENTS, element_properties, valence

Floats = NDArray[np.float64]

# fmt: off
_STATES = """
H -1 1|Li 1|Be 2|B 3|C -4 2 4|N -3 3 5|O -2|F -1|Na 1|Mg 2|Al 3|Si -4 4|P -3 3 5|S -2 4 6|Cl -1 5 7|K 1|Ca 2|Sc 3|
Ti 2 3 4|V 2 3 4 5|Cr 2 3 6|Mn 2 3 4 7|Fe 2 3|Co 2 3|Ni 2|Cu 1 2|Zn 2|Ga 3|Ge -4 2 4|As -3 3 5|Se -2 4 6|Br -1 5|
Rb 1|Sr 2|Y 3|Zr 4|Nb 3 4 5|Mo 4 6|Tc 4 7|Ru 3 4|Rh 3|Pd 2 4|Ag 1|Cd 2|In 1 3|Sn -4 2 4|Sb -3 3 5|Te -2 4 6|I -1 5 7|
Xe 2 4 6|Cs 1|Ba 2|La 3|Ce 3 4|Pr 3 4|Nd 3|Pm 3|Sm 2 3|Eu 2 3|Gd 3|Tb 3 4|Dy 3|Ho 3|Er 3|Tm 3|Yb 2 3|Lu 3|Hf 4|
Ta 3 4 5|W 4 6|Re 4 6 7|Os 4 8|Ir 3 4|Pt 2 4|Au -1 1 3|Hg 1 2|Tl 1 3|Pb 2 4|Bi -3 3 5|Po -2 2 4|At -1 1|Fr 1|Ra 2|
Ac 3|Th 4|Pa 4 5|U 4 5 6|Np 4 5|Pu 3 4|Am 3|Cm 3|Bk 3|Cf 3|Es 3|Fm 3|Md 3|No 2 3|Lr 3
"""
# fmt: on
MAX_ASSIGNMENTS = 20000
"""Largest number of assignments of oxidation states; above it only the first and last states are used."""
NAMES = (
    "imbalance",
    "mixed imbalance",
    "left inside",
    "left outside",
    "mean charge",
    "octet excess",
    "octet misfit",
    "ionicity",
    "contrast",
    "odd",
    "elements",
)
ELECTRONEGATIVITY_MARGIN = 0.35
"""Largest Pauling electronegativity of a cation above that of an anion, as for lead and tellurium."""
NAMES_OF_SPACE = ("volume", "packing", "periodic")


@cache
def oxidation_states() -> dict[int, tuple[int, ...]]:
    """Common oxidation states of each atomic number, ascending."""
    entries = dict(entry.split(maxsplit=1) for entry in _STATES.replace("\n", "").split("|"))
    return {z: tuple(map(int, entries[s].split())) for z, s in enumerate(chemical_symbols) if s in entries}


def n_composition_features() -> int:
    """Number of composition features."""
    n_properties: int = element_properties().shape[1]
    return 4 * n_properties + len(NAMES) + len(NAMES_OF_SPACE)


def composition_features(atoms: Atoms) -> Floats:
    """Features of composition and density [n_composition_features].

    Raises:
        ValueError: for an element beyond the table of properties.
    """
    numbers, counts = np.unique(atoms.numbers, return_counts=True)
    unknown = [int(z) for z in numbers if not 0 < z <= N_ELEMENTS]
    if unknown:
        raise ValueError(f"the structure contains Z = {unknown}; properties are known for Z = 1 to {N_ELEMENTS}.")
    share = counts / counts.sum()
    table = element_properties()[numbers]
    mean = share @ table
    std = np.sqrt(share @ (table - mean) ** 2)
    kinds, shares, counts_per_formula = tuple(numbers.tolist()), share.tolist(), tuple(counts.tolist())
    chemistry = [
        *_balance(kinds, shares),
        *_octet(kinds, shares),
        *_contrast(kinds, shares),
        _odd(kinds, counts_per_formula),
    ]
    parts = [mean, std, table.min(0), table.max(0), chemistry, [float(len(kinds))], _space(atoms)]
    return np.concatenate([np.asarray(part, np.float64) for part in parts])


def _balance(kinds: tuple[int, ...], shares: list[float]) -> tuple[float, float, float, float, float]:
    """Charge balance of the assignment of common oxidation states that is closest to neutral.

    The electronegativity of no cation exceeds that of an anion by more than `ELECTRONEGATIVITY_MARGIN`. Elements
    without common states (He, Ne, ...) have none.

    Returns:
        its |charge| per atom; the same with mixed valence; and, per atom, the electrons left in the cations' d and f
        shells and in their s and p shells, and the mean |oxidation state|.
    """
    x = np.array([ELECTRONEGATIVITY[z - 1] for z in kinds])
    share = np.array(shares)
    states = [oxidation_states().get(z, (0,)) for z in kinds]
    if math.prod(map(len, states)) > MAX_ASSIGNMENTS:
        states = [tuple({s[0], s[-1]}) for s in states]
    charges = np.array(list(itertools.product(*states)), np.float64)
    lowest_anion = np.where(charges < 0, x, np.inf).min(1)
    highest_cation = np.where(charges > 0, x, -np.inf).max(1)
    sensible = charges[lowest_anion >= highest_cation - ELECTRONEGATIVITY_MARGIN]
    best = min(sensible if len(sensible) else charges, key=lambda q: (round(abs(q @ share), 9), q @ q))
    low, high = (float(sum(c * s[end] for c, s in zip(share, states, strict=True))) for end in (0, -1))
    inner, outer = (
        float(left) for left in share @ [_remaining_electrons(z, q) for z, q in zip(kinds, best, strict=True)]
    )
    return float(abs(best @ share)), max(low, -high, 0.0), inner, outer, float(np.abs(best) @ share)


def _remaining_electrons(number: int, charge: float) -> tuple[float, float]:
    """Remaining electrons of a cation in d and f, and in s and p; closed d and f shells do not count."""
    s, p, d, f = valence(number)
    if charge <= 0.0:
        return 0.0, 0.0
    if p or not (d or f):
        return 0.0, max(s + p - charge, 0.0)
    f_open = 0 if f == CAPACITY["f"] and d else f
    if d == CAPACITY["d"]:
        return 0.0, max(s - charge, 0.0)
    left = max(s + d + f_open - charge, 0.0)
    return (0.0 if left == CAPACITY["f" if f_open else "d"] else left), 0.0


def _octet(kinds: tuple[int, ...], shares: list[float]) -> tuple[float, float]:
    """Valence electrons per atom in excess of filled octets of the p elements, and the absolute value.

    Elements without p electrons donate electrons; those with p electrons accept `8 − v`, hydrogen one.
    """
    given = wanted = 0.0
    for z, share in zip(kinds, shares, strict=True):
        s, p, d, f = valence(z)
        if z == 1 or (p and ELECTRONEGATIVITY[z - 1] > 1.85):
            wanted += share * (1 if z == 1 else 8 - s - p)
        else:
            given += share * (s + p if p else s + (d if d < 10 else 0) + min(f, 1 if d == 0 and f < 14 else 0))
    excess = given - wanted
    return excess, abs(excess)


def _contrast(kinds: tuple[int, ...], shares: list[float]) -> tuple[float, float]:
    """Mean ionicity `Σ c_i c_j [1 − exp(−(X_i − X_j)²/4)]` of pairs, after Pauling, and the range of X."""
    x = np.array([ELECTRONEGATIVITY[z - 1] for z in kinds])
    c = np.array(shares)
    ionic = 1.0 - np.exp(-0.25 * (x[:, None] - x) ** 2)
    return float(c @ ionic @ c), float(x.max() - x.min())


def _odd(kinds: tuple[int, ...], counts: tuple[int, ...]) -> float:
    """Whether the formula unit has an odd number of electrons, hence no gap unless it is magnetic or dimerized."""
    unit = reduce(math.gcd, counts)
    return float(sum(z * (n // unit) for z, n in zip(kinds, counts, strict=True)) % 2)


def _space(atoms: Atoms) -> list[float]:
    """ln(volume per atom, Å³), packing fraction of covalent spheres, and whether the structure is a crystal."""
    if not atoms.pbc.all():
        return [0.0, 0.0, 0.0]
    volume = abs(float(np.linalg.det(atoms.cell.array)))
    spheres = 4.0 / 3.0 * math.pi * float((covalent_radii[atoms.numbers] ** 3).sum())
    return [math.log(volume / len(atoms)), spheres / volume, 1.0]
