"""Real spherical harmonics."""

import math

import torch
from torch import Tensor

L_MAX = 8


def degrees(l_max: int) -> list[int]:
    """The degree l of each of the `(l_max + 1)²` components that `harmonics` returns."""
    return [degree for degree in range(l_max + 1) for _ in range(2 * degree + 1)]


def harmonics(u: Tensor, l_max: int) -> Tensor:
    """Real spherical harmonics in Racah's normalisation, `Σ_m Y_lm(u) Y_lm(v) = P_l(u · v)`.

    `Y_lm = Q_lm(z) Re (x + iy)^m` and `Y_l,−m = Q_lm(z) Im (x + iy)^m` with the polynomials `Q_lm` of `legendre`.

    Args:
        u: unit vectors [..., 3].
        l_max: highest degree, 0 to 8.

    Returns:
        [..., (l_max + 1)²], degrees in ascending order, within a degree m = −l … l; degree 1 is x, y, z.

    Raises:
        ValueError: if `l_max` is not in 0 … 8.
    """
    if not 0 <= l_max <= L_MAX:
        raise ValueError(f"l_max is {l_max}; spherical harmonics are given for 0 to {L_MAX}.")
    x, y, z = u.unbind(-1)
    real, imaginary = [torch.ones_like(x), x], [torch.zeros_like(x), y]
    for m in range(2, l_max + 1):
        real.append(x * real[m - 1] - y * imaginary[m - 1])
        imaginary.append(x * imaginary[m - 1] + y * real[m - 1])
    q = [legendre(z, m, l_max) for m in range(l_max + 1)]
    components = [real[0]]
    for degree in range(1, l_max + 1):
        orders = range(1, degree + 1)
        below = [q[m][degree - m] * imaginary[m] for m in reversed(orders)]
        above = [q[m][degree - m] * real[m] for m in orders]
        components += [x, y, z] if degree == 1 else [*below, q[0][degree], *above]
    return torch.stack(components, -1)


def legendre(z: Tensor, m: int, l_max: int) -> list[Tensor]:
    """`Q_lm = √(2 (l − m)! / (l + m)!) (1 − z²)^(−m/2) P_l^m(z)`, without the 2 where m is 0.

    `P_l^m` is without the factor (−1)^m of some authors, so that all `Q_mm` are positive;
    `√(l² − m²) Q_lm = (2l − 1) z Q_l−1,m − √((l − 1)² − m²) Q_l−2,m` (DLMF 14.10.3, normalised).

    Args:
        z: cosines of the polar angle [...].
        m: order, at least 0.
        l_max: highest degree.

    Returns:
        for each degree l = m … l_max the polynomial [...].
    """
    first = math.prod(range(1, 2 * m, 2)) * math.sqrt((2 if m else 1) / math.factorial(2 * m))
    q = [torch.full_like(z, first)]
    for degree in range(m + 1, l_max + 1):
        norm = math.sqrt(degree**2 - m**2)
        value = (2 * degree - 1) / norm * z * q[-1]
        if degree > m + 1:
            value = value - math.sqrt((degree - 1) ** 2 - m**2) / norm * q[-2]
        q.append(value)
    return q
