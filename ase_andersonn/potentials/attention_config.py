"""Sizes of the DEQ-attention potential."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ase_andersonn.nn.spherical_harmonics import L_MAX

from .energy_config import EnergyModelConfig


@dataclass(frozen=True)
class DEQAttentionConfig(EnergyModelConfig):
    """Sizes of a DEQ-attention potential; those of `EnergyModelConfig`, and

    Attributes:
        n_radial: radial functions.
        l_max: highest Legendre polynomial of the angle between two neighbours, 0 to 8; also highest degree of
            the density of messages.
        n_edge: width of a neighbour's radial and species part.
        n_token: width of a neighbour's token after attention.
        n_heads: attention heads.
        n_hidden: width of the atoms' injection network.
        contraction: γ, the bound on the cell's Lipschitz constant.
        n_pairs: channels that every channel `c` of the density is multiplied with in the power spectrum, counted
            cyclically: `c`, `c − 1`, …; 1 is the squares alone, `n_edge // 2 + 1` every pair. The same of the density
            of messages, of which `n_message // 2 + 1` is every pair.
        n_bispectrum: channels of the bispectrum, the products of three densities, of either density; none where this is
            0 or `l_max` below 2.
        separable: whether the value that is weighted by the attention is in each channel a radial function times a
            number of the neighbour's species, instead of any function of its distance and both species.
        n_message: width of the messages sent to the neighbours before the fixed-point solve; 0 for none.
        linear: whether the embedding enters the energy on a linear path too, past the injection network and the
            readout's: out of distribution a linear map extrapolates better than a network.
        message_limit: bound of the messages, `t / √(1 + (t / limit)²)`: in a long training nothing
            else keeps them in the range for which the features were scaled. None for no bound.

    Raises:
        ValueError: for elements and sizes that make no model.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {"n_told": "n_message"}

    n_radial: int = 6
    l_max: int = 4
    n_edge: int = 32
    n_token: int = 64
    n_heads: int = 4
    n_hidden: int = 128
    contraction: float = 0.7
    n_pairs: int = 2
    n_bispectrum: int = 16
    separable: bool = True
    n_message: int = 32
    linear: bool = True
    message_limit: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_radial", "n_edge", "n_token", "n_heads", "n_hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it has to be at least 1.")
        for name in ("n_edge", "n_token"):
            if getattr(self, name) % self.n_heads:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it has to be a multiple of n_heads, {self.n_heads}."
                )
        if not 1 <= self.n_pairs <= self.n_edge // 2 + 1:
            raise ValueError(
                f"n_pairs is {self.n_pairs}; it has to be in 1 to {self.n_edge // 2 + 1}, n_edge // 2 + 1."
            )
        for name in ("n_bispectrum", "n_message"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it has to be at least 0, for none.")
        if not 0 <= self.l_max <= L_MAX:
            raise ValueError(f"l_max is {self.l_max}; it has to be in 0 to {L_MAX}.")
        if self.message_limit is not None and not 0.0 < self.message_limit < math.inf:
            raise ValueError(f"message_limit is {self.message_limit}; it has to be a positive number, or None.")
        if not 0.0 < self.contraction < 1.0:
            raise ValueError(f"contraction is {self.contraction}; it has to be between 0 and 1.")
