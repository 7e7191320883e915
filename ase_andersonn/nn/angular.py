"""Real spherical harmonics."""

import math

import torch
from torch import Tensor

L_MAX = 4


def degrees(l_max: int) -> list[int]:
    """The degree l of each of the `(l_max + 1)²` components that `harmonics` returns."""
    return [degree for degree in range(l_max + 1) for _ in range(2 * degree + 1)]


def harmonics(u: Tensor, l_max: int) -> Tensor:
    """Real spherical harmonics in Racah's normalisation, `Σ_m Y_lm(u) Y_lm(v) = P_l(u · v)`.

    Args:
        u: unit vectors [..., 3].
        l_max: highest degree, 0 to 4.

    Returns:
        [..., (l_max + 1)²], degrees in ascending order.

    Raises:
        ValueError: if `l_max` is not in 0 … 4.
    """
    if not 0 <= l_max <= L_MAX:
        raise ValueError(f"l_max is {l_max}; spherical harmonics are given for 0 to {L_MAX}.")
    x, y, z = u.unbind(-1)
    components = [torch.ones_like(x)]
    if l_max >= 1:
        components += [x, y, z]
    if l_max >= 2:
        xx, yy, zz = x * x, y * y, z * z
        s3 = math.sqrt(3.0)
        components += [s3 * x * y, s3 * y * z, 1.5 * zz - 0.5, s3 * x * z, 0.5 * s3 * (xx - yy)]
    if l_max >= 3:
        s58, s38, s15 = math.sqrt(5 / 8), math.sqrt(3 / 8), math.sqrt(15.0)
        components += [
            s58 * y * (3 * xx - yy),
            s15 * x * y * z,
            s38 * y * (5 * zz - 1),
            0.5 * z * (5 * zz - 3),
            s38 * x * (5 * zz - 1),
            0.5 * s15 * z * (xx - yy),
            s58 * x * (xx - 3 * yy),
        ]
    if l_max >= 4:
        s35, s70, s5, s10 = math.sqrt(35.0), math.sqrt(70.0), math.sqrt(5.0), math.sqrt(10.0)
        components += [
            0.5 * s35 * x * y * (xx - yy),
            0.25 * s70 * y * z * (3 * xx - yy),
            0.5 * s5 * x * y * (7 * zz - 1),
            0.25 * s10 * y * z * (7 * zz - 3),
            0.125 * (35 * zz * zz - 30 * zz + 3),
            0.25 * s10 * x * z * (7 * zz - 3),
            0.25 * s5 * (xx - yy) * (7 * zz - 1),
            0.25 * s70 * x * z * (xx - 3 * yy),
            0.125 * s35 * (xx * (xx - 3 * yy) - yy * (3 * xx - yy)),
        ]
    return torch.stack(components, -1)
