"""Density images of atoms: Gaussians on a grid in the cell, differentiable in positions, cell and weights.

    I(p) = Σ_j w_j g(|r_p − r_j|),    g(r) = exp(−r² / 2σ²) s(r / r_c)

with s = 1 up to 0.8 r_c and a smooth step to zero at r_c with two continuous derivatives, so that pixels are smooth
functions of the positions. Along a periodic axis of n pixels, pixel k is at k/n of the cell vector, k < n; all periodic
images within r_c contribute. Along an open axis the pixels are at (k + ½)/n.

Mills et al., Chem. Sci. 10, 4129 (2019).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

PAIRS_AT_ONCE = 2**22
"""Number of pairs of atom and pixel evaluated at once."""


def gaussian_image(
    positions: Tensor,
    weights: Tensor,
    cell: Tensor,
    n_pixels: Sequence[int],
    periodic: Sequence[bool],
    *,
    sigma: float,
    cutoff: float,
) -> Tensor:
    """Density image of atoms in a cell [*n_pixels].

    In two dimensions the atoms are projected on the plane of the two vectors.

    Args:
        positions: [n_atoms, 3], Å.
        weights: weights of the atoms [n_atoms], for instance their atomic numbers.
        cell: vectors along the image's axes [n_axes, 3], Å.
        n_pixels: number of pixels along each axis.
        periodic: whether each axis is periodic.
        sigma: width of the Gaussians, Å.
        cutoff: r_c, Å.

    Raises:
        ValueError: if an atom is within the cutoff of an open edge of the image.
    """
    inverse = torch.linalg.pinv(cell)  # [3, n_axes]
    counts = torch.tensor(n_pixels, device=cell.device)
    rings = torch.tensor(periodic, device=cell.device)
    places = (positions @ inverse) * counts - torch.where(rings, 0.0, 0.5).to(cell)  # in pixels
    nearest = places.detach().round().long()
    offsets = _stencil(cell.detach(), counts, cutoff)
    _check_edges(places.detach(), inverse.detach(), counts, rings, cutoff)
    steps = cell / counts[:, None]
    image = positions.new_zeros(math.prod(n_pixels))
    rows = max(1, PAIRS_AT_ONCE // len(offsets))
    for first in range(0, len(positions), rows):
        part = slice(first, first + rows)
        pixels = nearest[part, None] + offsets
        distances = ((places[part, None] - pixels) @ steps).square().sum(-1)
        values = weights[part, None] * gaussian(distances, sigma, cutoff)
        inside = ((pixels >= 0) & (pixels < counts) | rings).all(-1)
        flat = _flat(pixels.remainder(counts), n_pixels)
        image = image.index_add(0, flat.reshape(-1), torch.where(inside, values, 0.0).reshape(-1))
    return image.view(*n_pixels)


def gaussian(squares: Tensor, sigma: float, cutoff: float) -> Tensor:
    """`exp(−r² / 2σ²) s(r / r_c)` from r²; s(x) = 1 − t³ (10 − 15 t + 6 t²), t = (x − 0.8) / 0.2 between 0 and 1."""
    r = squares.clamp(min=1e-24).sqrt()  # the root has no derivative at zero
    t = ((r / cutoff - 0.8) / 0.2).clamp(0.0, 1.0)
    return torch.exp(squares * (-0.5 / sigma**2)) * (1.0 - t**3 * (10.0 + t * (6.0 * t - 15.0)))


def _stencil(cell: Tensor, counts: Tensor, cutoff: float) -> Tensor:
    """Offsets of the pixels within the cutoff of an atom, from its nearest pixel [n, n_axes]."""
    heights = torch.linalg.pinv(cell).norm(dim=0).reciprocal()  # between the planes of the other vectors
    reach = (torch.ceil(cutoff * counts / heights) + 1).long().tolist()
    axes = [torch.arange(-n, n + 1, device=cell.device) for n in reach]
    offsets = torch.cartesian_prod(*axes).view(-1, len(axes))
    # an atom is at most half a pixel from its nearest along each axis
    slack = 0.5 * (cell / counts[:, None]).norm(dim=1).sum()
    return offsets[(offsets.to(cell) @ (cell / counts[:, None])).norm(dim=1) <= cutoff + slack]


def _check_edges(places: Tensor, inverse: Tensor, counts: Tensor, rings: Tensor, cutoff: float) -> None:
    if bool(rings.all()):
        return
    margin = cutoff * counts * inverse.norm(dim=0)  # in pixels
    centred = places + 0.5
    out = ((centred < margin) | (centred > counts - margin)) & ~rings
    if bool(out.any()):
        raise ValueError(
            f"{int(out.any(1).sum())} atoms are closer than {cutoff:g} Å to an open edge of the image, or beyond it; "
            "give the cell vacuum there, for example with atoms.center(vacuum=...), or make the axis periodic."
        )


def _flat(pixels: Tensor, n_pixels: Sequence[int]) -> Tensor:
    flat = pixels[..., 0]
    for axis, n in enumerate(n_pixels[1:], start=1):
        flat = flat * n + pixels[..., axis]
    return flat
