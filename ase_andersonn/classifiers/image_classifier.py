"""Deep AndersoNN classifier: the fixed point of a convolution over node–neighbour images.

    z = f(z; image),    φ = MLP pool_atoms(pool_columns(z)),    p = softmax(W φ / T)

Rows of atoms are independent and pooling is intensive, so primitive cell, conventional cell and supercell have equal
predictions. The convolution is over neighbours only, not over atoms as in the paper, since the atoms of a crystal have
no order.

Al Dajani and Keyes, arXiv 2407.19724.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from ase import Atoms
from torch import Tensor, nn

from ase_andersonn.backends import CompileMode, compile_function
from ase_andersonn.labels import ELECTRONIC, LabelSet
from ase_andersonn.nn.blocks import silu
from ase_andersonn.solvers import Anderson, Segments, Solver, fixed_point, solve, solve_linear
from ase_andersonn.solvers.base import Map

from .base import ClassifierModel, SolveStatistics
from .features.neighbor_image import NodeNeighborImages, channel_names, join, node_neighbor_image
from .layers.atom_pooling import AtomPooling
from .layers.convolution_cell import ImageCell, ImageInjection, apply_image_cell
from .layers.detail_preserving_pooling import PoolingKind, pooling
from .layers.standardize import Standardize

GATE_BIAS = 2.0
"""Initial bias of the gates, so that they are mostly open before training."""


@dataclass(frozen=True)
class ImageClassifierConfig:
    """Hyperparameters of an `ImageClassifier`.

    Attributes:
        labels: names and thresholds.
        cutoff: Å.
        n_neighbors: columns of the image.
        n_radial: Gaussians of the distance.
        resolution: distances that differ by less are partly one shell, Å.
        n_channels: width of the equilibrium features.
        kernel_size: columns under the convolution's kernel, odd.
        contraction: γ, the bound on the cell's Lipschitz constant.
        pooling: kind of pooling of the columns; see `classifiers.layers.detail_preserving_pooling`.
        pool: number of columns pooled to one.
        n_hidden: width of the networks of columns and of structures.
        n_pooled: width of the features pooled over atoms; a multiple of `n_heads`.
        n_heads: attention heads of the pooling over atoms.
        n_features: width of the features, the input of the head.
        window: window of Anderson acceleration.
        mixing: mixing of Anderson acceleration.
        tolerance: relative residual of the equilibrium.
        training_tolerance: the same while training.
        max_steps: largest number of evaluations of the cell.
        dropout: dropout rate of the structures' network in training.

    Raises:
        ValueError: for invalid sizes.
    """

    labels: LabelSet = field(default_factory=lambda: ELECTRONIC)
    cutoff: float = 6.0
    n_neighbors: int = 16
    n_radial: int = 12
    resolution: float = 0.2
    n_channels: int = 32
    kernel_size: int = 3
    contraction: float = 0.8
    pooling: PoolingKind = "dpp-lite"
    pool: int = 4
    n_hidden: int = 128
    n_pooled: int = 64
    n_heads: int = 4
    n_features: int = 64
    window: int = 5
    mixing: float = 1.0
    tolerance: float = 1e-5
    training_tolerance: float = 1e-3
    max_steps: int = 100
    dropout: float = 0.2

    def __post_init__(self) -> None:
        for name in ("cutoff", "resolution"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)} Å; it has to be a positive number.")
        sizes = ("n_neighbors", "n_channels", "pool", "n_hidden", "n_pooled", "n_heads", "n_features", "max_steps")
        for name in sizes:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it has to be at least 1.")
        for name, unit in (("n_neighbors", "pool"), ("n_pooled", "n_heads")):
            if getattr(self, name) % getattr(self, unit):
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it has to be a multiple of {unit}, {getattr(self, unit)}."
                )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout}; it has to be in [0, 1).")
        if not min(self.tolerance, self.training_tolerance) > 0.0:
            raise ValueError(
                f"tolerance is {self.tolerance}, {self.training_tolerance} in training; give positive ones."
            )


class ImageClassifier(ClassifierModel):
    """Deep AndersoNN classifier, see the module.

    Args:
        config: sizes and labels.
        solver: solver of the fixed point and its adjoint; by default Anderson acceleration with the config's
            parameters; `Picard()` for forward iteration.

    Attributes:
        solver: the solver; may be replaced at any time.
        adjoint_statistics: statistics of the last backward pass; None before it.
    """

    def __init__(self, config: ImageClassifierConfig, solver: Solver | None = None) -> None:
        super().__init__(config, config.n_features)
        c = config.n_channels
        self.solver: Solver = Anderson(config.window, config.mixing) if solver is None else solver
        self.adjoint_statistics: SolveStatistics | None = None
        n_image = len(channel_names(config.n_radial))
        self.standardize = Standardize(n_image)
        self.first = nn.Linear(n_image, config.n_hidden)
        self.inject = nn.Linear(config.n_hidden, 3 * c)
        self.cell = ImageCell(c, config.n_neighbors, config.kernel_size, config.contraction)
        self.pool_columns = pooling(config.pooling, c, config.pool)
        self.pool_atoms = AtomPooling(c * config.n_neighbors // config.pool, config.n_pooled, config.n_heads)
        self.readout = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(self.pool_atoms.n_features, config.n_hidden),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.n_hidden, config.n_features),
            nn.SiLU(),
            nn.Dropout(config.dropout),
        )
        self.compile_functions(False)

    @property
    def cutoff(self) -> float:
        """Å."""
        cutoff: float = self.config.cutoff
        return cutoff

    def compile_functions(self, mode: CompileMode) -> None:
        """Compile the columns' network and the cell, with dynamic shapes."""
        device = self.first.weight.device
        self._encode = compile_function(self.encode, device=device, mode=mode, dynamic=True)
        self._cell = compile_function(apply_image_cell, device=device, mode=mode, dynamic=True)

    # Structures as tensors

    def sample(self, structure: Atoms) -> NodeNeighborImages:
        """See `ClassifierModel.sample`; in the precision of the weights."""
        c = self.config
        return node_neighbor_image(
            structure,
            cutoff=c.cutoff,
            n_neighbors=c.n_neighbors,
            n_radial=c.n_radial,
            resolution=c.resolution,
            dtype=self.first.weight.dtype,
        )

    def size(self, sample: NodeNeighborImages) -> tuple[int, int]:
        """See `ClassifierModel.size`."""
        return sample.n_atoms, sample.values.shape[1]

    def collate(self, samples: Sequence[NodeNeighborImages]) -> NodeNeighborImages:
        """See `ClassifierModel.collate`."""
        return join(samples).to(self.first.weight.device, self.first.weight.dtype)

    def calibrate(self, samples: Sequence[NodeNeighborImages]) -> None:
        """Set mean and standard deviation of the image's channels."""
        self.standardize.fit(
            torch.cat([sample.values.flatten(0, 1) for sample in samples]).to(self.first.weight.device)
        )

    # The network

    def encode(self, values: Tensor) -> ImageInjection:
        """Injection of the image into the cell; values [n_atoms, n_neighbors, n_image_channels]."""
        u, v, gates = self.inject(silu(self.first(self.standardize(values)))).chunk(3, -1)
        return ImageInjection(u, v, (gates + GATE_BIAS).sigmoid())

    def embed(self, batch: NodeNeighborImages) -> Tensor:
        """See `ClassifierModel.embed`."""
        z = self.equilibrium(batch)
        columns = self.pool_columns(z.transpose(1, 2)).transpose(1, 2)
        features: Tensor = self.readout(self.pool_atoms(columns.flatten(1), batch.system, batch.n_per_system))
        return features

    def equilibrium(self, batch: NodeNeighborImages) -> Tensor:
        """`z*` [n_atoms, n_neighbors, n_channels], differentiable in the weights; sets `statistics`."""
        injection, weights = self._encode(batch.values), self.cell.weights()
        segments = Segments(batch.system, batch.n_systems)
        tol = self.config.training_tolerance if self.training else self.config.tolerance
        settings = {"solver": self.solver, "tol": tol, "max_steps": self.config.max_steps, "segments": segments}
        with torch.no_grad():
            found = solve(lambda z: self._cell(z, *injection, *weights), injection.u, **settings)
        self.statistics = SolveStatistics(found.steps, found.residual, found.converged, found.evaluations)

        def adjoint(f: Map, start: Tensor) -> Tensor:
            solved = solve_linear(f, start, **settings)
            self.adjoint_statistics = SolveStatistics(
                solved.steps, solved.residual, solved.converged, solved.evaluations
            )
            return solved.value

        return fixed_point(apply_image_cell, adjoint, found.value, *injection, *weights)
