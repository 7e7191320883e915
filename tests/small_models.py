"""Small models with random weights, and structures for them to be tried on."""

from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from ase_andersonn import AndersoNN
from ase_andersonn.potentials.attention_config import DEQAttentionConfig
from ase_andersonn.potentials.deq_attention import DEQAttention
from ase_andersonn.potentials.deq_cartesian import DEQCartesian, DEQCartesianConfig
from ase_andersonn.potentials.injection_network import InjectionNetwork

CARD = {"description": "random weights", "elements": ["H", "C"], "errors": {"energy": 1.5}}
ELEMENTS = (1, 6, 8, 14, 29)
SIZES: dict[str, Any] = {
    "cutoff": 4.0,
    "n_radial": 5,
    "l_max": 3,
    "n_pairs": 2,
    "n_bispectrum": 3,
    "n_channels": 12,
    "n_edge": 8,
    "n_token": 12,
    "n_heads": 2,
    "n_hidden": 16,
    "n_message": 0,
    "linear": False,
}
TENSORS: dict[str, Any] = {"n_tensors": 5, "n_products": 4}
"""More of a DEQ-Cartesian model."""


def small_model(
    seed: int = 0, dtype: torch.dtype = torch.float64, noise: float = 0.2, cell_scale: float = 1.0, **sizes: Any
) -> InjectionNetwork:
    """A model whose gates, gains, biases and scales are all random.

    Args:
        seed: of the weights.
        dtype: precision of the weights.
        noise: added to every weight, so that none keeps a trivial starting value.
        cell_scale: factor of the cell's matrices; above 1 the bounds on their norms are at work.
        sizes: fields of `DEQAttentionConfig` other than those of `SIZES`; with a `rank`, of `DEQCartesianConfig`.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        fields = {"elements": ELEMENTS, **SIZES, **sizes}
        model: InjectionNetwork
        if "rank" in sizes:
            model = DEQCartesian(DEQCartesianConfig(**TENSORS, **fields))
        else:
            model = DEQAttention(DEQAttentionConfig(**fields))
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
        for parameter in model.cell.parameters():
            parameter.mul_(cell_scale)
        model.output.mul_(5.0)
        model.min_distance.mul_(0.6)  # as of a model trained on close contacts
        model.feature_mean.normal_(0.0, 0.1)
        model.feature_std.uniform_(0.3, 1.0)
        if isinstance(model, DEQAttention) and model.n_message:
            model.message_mean.normal_(0.0, 0.1)
            model.message_std.uniform_(0.3, 1.0)
        if isinstance(model, DEQCartesian):
            model.product_mean.normal_(0.0, 0.1)
            model.product_std.uniform_(0.3, 1.0)
            model.tensor_rms.uniform_(0.3, 1.0)
        n = len(model.elements)
        energies, scales = (-5.0 * torch.rand(n)).tolist(), (0.5 + torch.rand(n)).tolist()
    model.set_reference(
        dict(zip(model.elements, energies, strict=True)), dict(zip(model.elements, scales, strict=True))
    )
    return model.to(dtype).requires_grad_(False)


def cartesian_model(seed: int = 0, rank: int = 2, **sizes: Any) -> InjectionNetwork:
    """A model with tensors, and a linear path."""
    return small_model(seed, rank=rank, **{"linear": True, **sizes})


def message_model(seed: int = 0, **sizes: Any) -> InjectionNetwork:
    """A model with message passing before the equilibrium and a linear path."""
    return small_model(seed, **{"n_message": 5, "linear": True, **sizes})


def stiff_model(seed: int = 0, **sizes: Any) -> InjectionNetwork:
    """A model whose equilibrium is hard to find: gates and slopes near one, matrices near the identity, γ = 0.95."""
    model = small_model(seed, **{"contraction": 0.95, **sizes})
    n = model.n_channels
    eye = torch.eye(n, dtype=torch.float64)
    for weight, near in zip(model.cell.parameters(), (eye, torch.cat([eye, eye], 1), eye), strict=True):
        weight.mul_(0.3).add_(near)
    model.attention.gate.bias.add_(1.5)
    model.injection[-1].bias[:, n:].add_(2.0)
    return model


def small_calculator(**options: Any) -> AndersoNN:
    """A calculator of a small model in double precision, with a tight tolerance."""
    return AndersoNN(small_model(), **{"dtype": "float64", "tol": 1e-16, "compile": False, **options})


def rattled(atoms: Atoms, stdev: float = 0.1, seed: int = 0) -> Atoms:
    """The structure without its symmetry."""
    atoms.rattle(stdev, seed=seed)
    return atoms


def silicon() -> Atoms:
    """A cubic cell of 8 atoms, one of them carbon."""
    atoms = rattled(bulk("Si", cubic=True))
    atoms.numbers[3] = 6
    return atoms


def skewed() -> Atoms:
    """Two atoms in a skewed cell much smaller than the cutoff."""
    cell = np.array([[2.6, 0.2, 0.1], [1.4, 2.5, -0.2], [-1.1, 0.9, 2.7]])
    return rattled(Atoms("CuSi", scaled_positions=[[0.0, 0.0, 0.0], [0.45, 0.55, 0.5]], cell=cell, pbc=True))


def slab() -> Atoms:
    """A slab, periodic in two directions, with an oxygen atom on it."""
    atoms = fcc111("Cu", (2, 2, 2), vacuum=None)
    atoms += Atoms("O", positions=[atoms.positions[-1] + [0.3, 0.2, 1.6]])
    return rattled(atoms)


def ethanol() -> Atoms:
    """A molecule."""
    return rattled(molecule("CH3CH2OH"), 0.05)


def wire() -> Atoms:
    """A chain, periodic in one direction."""
    positions = [[0.0, 0.0, 0.0], [2.1, 0.4, 0.3], [4.3, -0.2, 0.1]]
    return Atoms("Si3", positions=positions, cell=[6.6, 0.0, 0.0], pbc=[True, False, False])


STRUCTURES = {"bulk": silicon, "skewed": skewed, "slab": slab, "molecule": ethanol, "wire": wire}
