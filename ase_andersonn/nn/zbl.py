"""The universal screened nuclear repulsion of Ziegler, Biersack and Littmark (ZBL)."""

import torch
from torch import Tensor

from .radial import envelope

COULOMB = 14.399645
"""e²/(4πε₀), eV Å."""
BOHR = 0.529177211
DECAYS = (3.2, 0.9423, 0.4029, 0.2016)
AMPLITUDES = (0.1818, 0.5099, 0.2802, 0.02817)


def zbl_energy(r: Tensor, z_i: Tensor, z_j: Tensor, reach: Tensor, mask: Tensor) -> Tensor:
    """`½ Σ_j e² Z_i Z_j / r · φ(r/a) · switch(r / reach)`, `a = 0.8854 a₀ / (Z_i^0.23 + Z_j^0.23)`.

    The switch is 1 up to half the reach and falls to 0 at the reach, with two continuous derivatives.

    Source: Ziegler, Biersack and Littmark, The Stopping and Range of Ions in Matter, 1985.

    Args:
        r: distances [n_atoms, n_neighbors], Å.
        z_i: nuclear charges of the atoms [n_atoms, 1].
        z_j: of their neighbours [n_atoms, n_neighbors].
        reach: where the repulsion ends [n_atoms, n_neighbors], Å.
        mask: true where a neighbour exists.

    Returns:
        energy of each atom [n_atoms], eV.
    """
    x = r * (z_i**0.23 + z_j**0.23) * (1.0 / (0.8854 * BOHR))
    screening = torch.zeros_like(r)
    for amplitude, decay in zip(AMPLITUDES, DECAYS, strict=True):
        screening = screening + amplitude * torch.exp(-decay * x)
    pair = COULOMB * z_i * z_j / r * screening * envelope((r - 0.5 * reach).clamp(min=0.0), 0.5 * reach)
    return 0.5 * torch.where(mask, pair, 0.0).sum(1)
