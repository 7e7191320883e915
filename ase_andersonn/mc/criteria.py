"""Acceptance criteria: logarithms of acceptance ratios in each ensemble.

    accept if  ln u <= ln a,    ln a = r - dE / kT,    u uniform in (0, 1]

where r is the contribution of ensemble and proposal beside the Boltzmann factor, one function per ensemble. No
exponential is evaluated, so that nothing overflows; -ln u is drawn as an exponential variate. Metropolis et al., J.
Chem. Phys. 21, 1087 (1953); Frenkel and Smit, Understanding Molecular Simulation (2002), chapters 3 and 5.
"""

import math

import numpy as np
from ase import units
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def accepted(log_ratio: float, energy_change: float, kT: float, rng: np.random.Generator) -> bool:
    """Metropolis criterion for one move, ln u <= log_ratio - energy_change / kT; False if this is not finite.

    Args:
        log_ratio: contribution r of ensemble and proposal, from the functions below.
        energy_change: eV.
        kT: eV.
        rng: random number generator; exactly one number is drawn.
    """
    minus_log_u = rng.standard_exponential()
    return math.isfinite(energy_change) and -minus_log_u <= log_ratio - energy_change / kT


def accepted_each(
    log_ratio: float | Floats, energy_changes: Floats, kT: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """`accepted` for each of many independent moves, [n]."""
    log_u = -rng.standard_exponential(len(energy_changes))
    with np.errstate(over="ignore", invalid="ignore"):
        decided: NDArray[np.bool_] = log_u <= log_ratio - energy_changes / kT
    decided &= np.isfinite(energy_changes)
    return decided


def isobaric(pressure: float, volume: float, log_change: float, n_atoms: int, kT: float) -> float:
    """Change of ln V with scaled positions, r = -p (V' - V) / kT + (N + 1) ln(V' / V).

    Frenkel and Smit, algorithm 11; McDonald, Mol. Phys. 23, 41 (1972).

    Args:
        pressure: p, eV/Å^3.
        volume: V, Å^3.
        log_change: ln(V' / V).
        n_atoms: N.
        kT: eV.
    """
    return -pressure * volume * math.expm1(log_change) / kT + (n_atoms + 1) * log_change


def semi_grand(potential_change: float, kT: float) -> float:
    """Change of an atom's species, r = (mu_new - mu_old) / kT. Kofke and Glandt, Mol. Phys. 64, 1105 (1988)."""
    return potential_change / kT


def log_activity(chemical_potential: float, mass: float, temperature_K: float) -> float:
    """ln(z Å^3) = mu / kT - 3 ln(wavelength / Å), the density of the ideal gas at this chemical potential.

    Args:
        chemical_potential: mu, eV, total; kT ln(rho wavelength^3) for an ideal gas of density rho.
        mass: u.
        temperature_K: K.
    """
    return chemical_potential / (units.kB * temperature_K) - 3.0 * math.log(thermal_wavelength(mass, temperature_K))


def insertion(log_activity: float, volume: float, n_before: int) -> float:
    """Insertion of an atom uniformly in the volume, r = ln(z V / (N + 1)). Frenkel and Smit, equation 5.6.8.

    Args:
        log_activity: ln(z Å^3).
        volume: V, Å^3.
        n_before: N, number of atoms of the species before the insertion.
    """
    return log_activity + math.log(volume) - math.log(n_before + 1)


def deletion(log_activity: float, volume: float, n_before: int) -> float:
    """Deletion of a uniformly chosen atom, r = ln(N / (z V)). Frenkel and Smit, equation 5.6.9. See `insertion`."""
    return math.log(n_before) - log_activity - math.log(volume)


def thermal_wavelength(mass: float, temperature_K: float) -> float:
    """Thermal de Broglie wavelength h / sqrt(2 pi m k T), Å.

    Args:
        mass: u.
        temperature_K: K.
    """
    thermal = 2.0 * math.pi * mass * units._amu * units._k * temperature_K
    return float(units._hplanck / math.sqrt(thermal) * 1e10)
