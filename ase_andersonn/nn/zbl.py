"""The universal screened nuclear repulsion of Ziegler, Biersack and Littmark (ZBL)."""

import torch
from torch import Tensor

from .radial import CLAMP_FRACTION, clamped_distance

COULOMB = 14.399645
"""e²/(4πε₀), eV Å."""
BOHR = 0.529177211
DECAYS = (3.2, 0.9423, 0.4029, 0.2016)
AMPLITUDES = (0.1818, 0.5099, 0.2802, 0.02817)


EARLIER = 0.12
"""What the push beyond the repulsion begins earlier than that itself, in shares of the onset, and ends earlier."""


def zbl_energy(
    r: Tensor,
    z_i: Tensor,
    z_j: Tensor,
    onset: Tensor,
    mask: Tensor,
    clamp_fraction: float | Tensor = CLAMP_FRACTION,
    push: float | Tensor = 0.0,
) -> Tensor:
    """`½ Σ_j [Z(r) − Z(ρ) + p (Z(ρ') − Z(ρ))]` with `Z(r) = e² Z_i Z_j / r · φ(r/a)`.

    The screening length is `a = 0.8854 a₀ / (Z_i^0.23 + Z_j^0.23)`; `ρ` is the distance that a network is given,
    `clamped_distance(r, onset, clamp_fraction)`, and `ρ'` the same with a floor lower by `EARLIER`. Beyond the onset
    all three are `r`, and the energy is 0. With the smooth steps `S ≤ S'` of `ρ` and `ρ'`

        ∂/∂r = −|Z'(r)| − p S' |Z'(ρ')| + (1 + p) S |Z'(ρ)|  ≤  0,    as r ≤ ρ' ≤ ρ:

    it repels everywhere below the onset, in the measure in which the network becomes blind, and by the whole universal
    repulsion where it is. The push `p` adds to this at the edge alone: it is what a network's pull is held with.

    Source: Ziegler, Biersack and Littmark, The Stopping and Range of Ions in Matter, 1985.

    Args:
        r: distances [n_atoms, n_neighbors], Å.
        z_i: nuclear charges of the atoms [n_atoms, 1].
        z_j: of their neighbours [n_atoms, n_neighbors].
        onset: where the repulsion ends [n_atoms, n_neighbors], Å.
        mask: true where a neighbour exists.
        clamp_fraction: share of the onset below which the network's distance is constant, see `clamped_distance`.
        push: `p`.

    Returns:
        energy of each atom [n_atoms], eV.
    """
    x = torch.stack(
        [
            r,
            clamped_distance(r, onset, clamp_fraction),
            clamped_distance(r, onset, clamp_fraction - EARLIER),
        ]
    )
    scaled = x * (z_i**0.23 + z_j**0.23) * (1.0 / (0.8854 * BOHR))
    screening = torch.zeros_like(x)
    for amplitude, decay in zip(AMPLITUDES, DECAYS, strict=True):
        screening = screening + amplitude * torch.exp(-decay * scaled)
    own, seen, pushed = (COULOMB * z_i * z_j / x * screening).unbind(0)
    pair = own - seen + push * (pushed - seen)
    return 0.5 * torch.where(mask & (r < onset), pair, 0.0).sum(1)
