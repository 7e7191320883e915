"""Exact energies and magnetisation of the square-lattice Ising model, E = −J Σ s_i s_j; energies and temperatures in J.

Onsager, Phys. Rev. 65, 117 (1944); Kaufman, Phys. Rev. 76, 1232 (1949); Yang, Phys. Rev. 85, 808 (1952).
"""

from __future__ import annotations

import numpy as np
from scipy.special import ellipkm1

CRITICAL = 2.0 / np.log(1.0 + np.sqrt(2.0))
"""T_c, J."""


def onsager_energy(temperature: float) -> float:
    """Energy per spin of the infinite lattice.

    `−coth 2K [1 + (2/π) q K₁]`, `q = 2 tanh² 2K − 1`, `K₁` the complete elliptic integral of complementary modulus |q|.

    The modulus of Onsager's formula, `κ = 2 sinh 2K / cosh² 2K`, has `1 − κ² = q²`. At T_c `q` is 0 and `K₁` infinite,
    as `ln(4/|q|)`; from `q` itself, kept off the pole, their product goes to 0 whatever the last bits are.
    """
    t = np.tanh(2.0 / temperature)
    q = 2.0 * t**2 - 1.0
    return float(-(1.0 + 2.0 / np.pi * q * ellipkm1(max(q**2, np.finfo(float).tiny))) / t)


def yang_magnetisation(temperature: float) -> float:
    """Spontaneous magnetisation per spin of the infinite lattice: `(1 − sinh⁻⁴ 2K)^(1/8)` below T_c, else 0.

    With `sinh⁻² 2K = 1/tanh² 2K − 1`; rounding next to T_c does not make it larger than 1.
    """
    if temperature >= CRITICAL:
        return 0.0
    return float(max(1.0 - (np.tanh(2.0 / temperature) ** -2 - 1.0) ** 2, 0.0) ** 0.125)


def log_partition(k: float, size: int) -> float:
    """`ln Z` of a periodic size × size lattice at K = J / k_B T, by Kaufman's four products."""
    r = np.arange(1, 2 * size)
    gamma = np.arccosh(np.cosh(2 * k) ** 2 / np.sinh(2 * k) - np.cos(np.pi * r / size))
    gamma = np.insert(gamma, 0, 2 * k + np.log(np.tanh(k)))  # negative above T_c
    logs, signs = [], []
    for chosen in (gamma[1::2], gamma[0::2]):
        x = size / 2 * chosen
        logs += [np.logaddexp(x, -x).sum(), (np.abs(x) + np.log1p(-np.exp(-2 * np.abs(x)))).sum()]
        signs += [1.0, np.prod(np.sign(x))]
    top = max(logs)
    total = float(np.dot(signs, np.exp(np.array(logs) - top)))
    return float(-np.log(2.0) + size**2 / 2 * np.log(2 * np.sinh(2 * k)) + top + np.log(total))


def finite_energy(temperature: float, size: int, step: float = 1e-5) -> float:
    """Energy per spin of a periodic size × size lattice, `−∂ ln Z/∂K / N` by central differences."""
    k = 1.0 / temperature
    return -(log_partition(k + step, size) - log_partition(k - step, size)) / (2 * step) / size**2
