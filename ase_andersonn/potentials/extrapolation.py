"""What was familiar in training: the densities of atoms, and the distribution of their injections.

The injections `x = [u_i ; v_i]` of each species' atoms are taken as a cloud with mean `x̄` and covariance `C`, and the
squared Mahalanobis distance

    s_i = (x − x̄)ᵀ C⁻¹ (x − x̄) / edge

says how far an atom is from it. The edge is measured on frames that the cloud was not fitted to: `s` is 1 in the mean
over the atoms of the frame that is farthest out.

Source: Zhu et al., J. Chem. Phys. 158, 164111 (2023) (Gaussian models of a potential's features as its uncertainty).
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from ase_andersonn.nn.neighborhoods import Neighborhoods
from ase_andersonn.nn.radial import distances
from ase_andersonn.structures.graph import Graph

from .base import EnergyModel
from .short_range import UNLIMITED

SHARE = 0.99
"""Of the atoms of a species, those nearer than the distance that the species are compared by."""

ALONE = 2.0
"""Times the score of the training atom that is farthest out, above which a single atom is warned of."""


@torch.no_grad()
def measure_max_density(model: EnergyModel, graphs: Iterable[Graph], *, begun: bool = False) -> None:
    """Set the highest local density of each species' atoms, above which atoms are pushed apart.

    Args:
        model: its buffer `max_density` is set.
        graphs: all training structures, in batches: one that is left out might be pushed.
        begun: whether the model was trained on others before, whose densities stay where they are higher or unknown.
    """
    found = torch.zeros_like(model.max_density)
    for graph in graphs:
        species = model.species(graph.numbers)
        r = distances(graph.vectors, graph.mask)
        near = Neighborhoods(graph.vectors, species, species[graph.neighbors], graph.mask)
        density = model.local_density(r, near).to(found)
        found.scatter_reduce_(0, species, density, "amax")
    model.max_density.copy_(
        torch.maximum(model.max_density, found) if begun else torch.where(found > 0, found, UNLIMITED)
    )


@torch.no_grad()
def measure_environments(model: EnergyModel, graphs: Iterable[Graph]) -> None:
    """Measure what is familiar to a trained model.

    Args:
        model: its buffers `environment_mean`, `environment_whitening` and `environment_max` are set, of species with
            more than two atoms.
        graphs: training structures, in batches.
    """
    rows, kinds, frames, n_frames = [], [], [], 0
    for graph in graphs:
        species = model.species(graph.numbers)
        u, v, _ = model.encode(graph.vectors, species, graph.neighbors, graph.mask)
        rows.append(model.injected_scalars(u, v).double())
        kinds.append(species)
        frames.append(graph.system + n_frames)
        n_frames += graph.n_systems
    x, species, frame = torch.cat(rows), torch.cat(kinds), torch.cat(frames)
    fitted = frame % 2 == 0 if n_frames > 3 else torch.ones_like(frame, dtype=torch.bool)
    shares, clouds = x.new_zeros(len(x)), {}
    for index in species.unique().tolist():
        own = species == index
        known = x[own & fitted] if int((own & fitted).sum()) > 2 else x[own]
        if len(known) > 2:
            mean, environment_whitening = cloud(known)
            squares = ((x[own] - mean) @ environment_whitening).square().sum(-1)
            clouds[index] = mean, environment_whitening, squares.quantile(SHARE)
            shares[own] = squares / clouds[index][2]
    means = _means(shares, frame, n_frames)
    for index, (mean, environment_whitening, square) in clouds.items():
        own = species == index
        held = own & ~fitted if bool((own & ~fitted).any()) else own
        edge = means[frame[held].unique()].max()
        model.environment_mean[index], model.environment_whitening[index] = (
            mean,
            environment_whitening / (square * edge).sqrt(),
        )
        model.environment_max[index] = (ALONE * shares[own].max() / edge).clamp(min=1.0)


def cloud(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [n], and `W` [n, n] with `W Wᵀ = C⁻¹`, of points [n_points, n].

    Where there are few points their covariance is drawn to its diagonal.
    """
    n_points, n = x.shape
    scatter = torch.cov(x.T)
    diagonal = torch.diag(scatter.diagonal() + 1e-6 * scatter.diagonal().mean() + 1e-12)
    share = min(1.0, max(1e-3, n / n_points))
    lower = torch.linalg.cholesky((1.0 - share) * scatter + share * diagonal)
    return x.mean(0), torch.linalg.inv(lower).T


def _means(rows: Tensor, frame: Tensor, n_frames: int) -> Tensor:
    """Of the rows of each frame [n_frames]."""
    count = torch.bincount(frame, minlength=n_frames)
    return rows.new_zeros(n_frames).index_add(0, frame, rows) / count
