"""Which models have kernels in C++, and models with them."""

import copy

import torch

from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.potentials.deq_attention import DEQAttention

from .attention import AttentionKernel
from .geometry import DistanceKernel, PairEnergyKernel
from .message_density import MessageDensityKernel

MAX_HEADS, MAX_DEGREE = 64, 9
"""Attention heads and degrees of spherical harmonics that the kernels have room for."""


def has_kernel(model: EnergyModel, device: torch.device) -> bool:
    """Whether the kernels compute what the model's encoder does."""
    if type(model) is not DEQAttention or device.type != "cpu":
        return False
    return model.attention.n_heads <= MAX_HEADS and model.attention.l_max <= MAX_DEGREE


def check_kernel(model: EnergyModel, device: torch.device) -> None:
    """Raise ValueError for a model or device without kernels."""
    if not has_kernel(model, device):
        kind = f"a {type(model).__name__} on {device}"
        raise ValueError(f"compile is 'native', of which {kind} has no kernels; use 'auto', True or False.")


def with_kernel(model: EnergyModel, device: torch.device) -> EnergyModel:
    """The model with most of its encoder in C++; weights are shared, and have no gradients.

    Raises:
        ValueError: for a model or device without kernels.
        RuntimeError: where the library cannot be built or loaded.
    """
    check_kernel(model, device)
    assert isinstance(model, DEQAttention)
    found, attention = copy.copy(model), copy.copy(model.attention)
    attention.kernel = AttentionKernel(model.attention)
    found._modules = {**model._modules, "attention": attention}
    if model.n_message:
        density = copy.copy(model.message_density)
        density.kernel = MessageDensityKernel(model.message_density)
        found._modules["message_density"] = density
    found.distance_kernel, found.pair_kernel = DistanceKernel(model), PairEnergyKernel(model)
    return found
