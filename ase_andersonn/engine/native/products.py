"""Weights of power spectrum and bispectrum in the form that the kernels read."""

import ctypes

import torch
from torch import Tensor

from ase_andersonn.nn.invariants import Bispectrum, Coupling

from .kernel import pointer

SIZES = ("l_max", "n_pairs", "n_channels", "n_mixed", "n_triples", "n_entries")


class _Sizes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in SIZES]


class _Weights(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("mix", "entries", "coefficients")]


class ProductWeights:
    """Sizes and weights of the products of a density.

    Args:
        l_max: highest degree of the density.
        n_channels: of the density.
        n_pairs: see `power_spectrum`.
        bispectrum: the layer, or None.
        dtype: precision.

    Attributes:
        n_features: of an atom.
        arguments: pointers to sizes and weights, valid as long as this lives.
    """

    def __init__(
        self, l_max: int, n_channels: int, n_pairs: int, bispectrum: Bispectrum | None, dtype: torch.dtype
    ) -> None:
        self.n_features = n_pairs * (l_max + 1) * n_channels
        self._kept: tuple[Tensor | None, ...] = (None, None, None)
        n_mixed = n_triples = n_entries = 0
        if bispectrum is not None:
            self.n_features += bispectrum.n_features
            n_triples = len(bispectrum.triples)
            n_mixed = bispectrum.n_features // n_triples
            entries, coefficients = coupling_entries(bispectrum)
            n_entries = len(entries)
            mix = torch.stack([p.detach() for p in bispectrum.mix.parameters()]).to(dtype)
            self._kept = mix, entries, coefficients.to(dtype)
        self._sizes = _Sizes(l_max, n_pairs, n_channels, n_mixed, n_triples, n_entries)
        self._weights = _Weights(*map(pointer, self._kept))
        self.arguments = ctypes.byref(self._sizes), ctypes.byref(self._weights)


def coupling_entries(bispectrum: Bispectrum) -> tuple[Tensor, Tensor]:
    """The coefficients `C_ijk` that are not zero.

    Returns:
        triple and components `l² + m` of the density [n_entries, 4], sorted by triple, and coefficients [n_entries],
        float64.
    """
    entries, coefficients = [], []
    for ((first, second), thirds), coupling in zip(bispectrum.pairs.items(), bispectrum.couplings, strict=True):
        assert isinstance(coupling, Coupling)
        for third, table in zip(thirds, coupling.table.split(coupling.sizes), strict=True):
            component, product = table.nonzero(as_tuple=True)
            a, b, c = sorted((first, second, third))
            places = first**2 + coupling.one[product], second**2 + coupling.two[product], third**2 + component
            entries.append(torch.stack([torch.full_like(product, bispectrum.triples.index((a, b, c))), *places], -1))
            coefficients.append(table[component, product])
    found = torch.cat(entries)
    order = found[:, 0].argsort(stable=True)
    return found[order].contiguous(), torch.cat(coefficients)[order]
