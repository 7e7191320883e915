"""Base class of classifiers of structures.

    p = softmax(W φ(x) / T),    out-of-distribution score = |L⁻¹ (φ(x) − φ̄)| / d₉₉

φ are the features of a structure, invariant to the choice of cell, orientation and order of atoms, `W` is the head, and
`T` the temperature that calibrates the probabilities on validation data (Guo et al., arXiv 1706.04599). φ̄ and `L Lᵀ`
are mean and covariance of the features of the training structures (Lee et al., arXiv 1807.03888), and `d₉₉` is the 99th
percentile of the distance over the validation structures.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from ase import Atoms
from torch import Tensor, nn

from ase_andersonn.backends import CompileMode
from ase_andersonn.labels import LabelSet
from ase_andersonn.solvers import Solver


class ClassifierConfig(Protocol):
    """Protocol of config dataclasses of classifiers."""

    @property
    def labels(self) -> LabelSet:
        """Labels of the classes."""


@dataclass(frozen=True)
class SolveStatistics:
    """Statistics of the last fixed-point solve of a model.

    Attributes:
        steps: evaluations until convergence of each structure, int64 [n_systems].
        residual: relative residual of each structure, float64 [n_systems].
        converged: bool [n_systems].
        evaluations: applications of the cell to the whole batch.
    """

    steps: Tensor
    residual: Tensor
    converged: Tensor
    evaluations: int


class ClassifierModel(nn.Module, ABC):
    """Base of networks that map structures to features and features to label probabilities.

    A model implements the preprocessing of a structure (`sample`, once per structure: neighbours, images), batching
    (`collate`), and the features of a batch (`embed`). Head, calibration and out-of-distribution score are common to
    all.

    Args:
        config: the config dataclass, with `labels`.
        n_features: width of the features.

    Attributes:
        config: the config.
        card: the model card, if the model was read from a file.
        solver: solver of the fixed point, of models that have one.
        statistics: statistics of the last solve; None for a model without a fixed point or before the first call.
        temperature: T, 1 before calibration.
        value_scale: mean and standard deviation of the quantity that the auxiliary head predicts [2].
    """

    def __init__(self, config: ClassifierConfig, n_features: int) -> None:
        super().__init__()
        self.config: Any = config
        self.card: dict[str, Any] = {}
        self.statistics: SolveStatistics | None = None
        self.n_features = n_features
        self.head = nn.Linear(n_features, len(config.labels))
        self.value_head = nn.Linear(n_features, 1)
        self.solver: Solver
        self.temperature: Tensor
        self.value_scale: Tensor
        self.feature_mean: Tensor
        self.feature_whitening: Tensor
        self.novelty_scale: Tensor
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("value_scale", torch.tensor([0.0, 1.0]))
        self.register_buffer("feature_mean", torch.zeros(n_features))
        self.register_buffer("feature_whitening", torch.eye(n_features))
        self.register_buffer("novelty_scale", torch.ones(()))

    @property
    def labels(self) -> LabelSet:
        """Labels of the classes."""
        labels: LabelSet = self.config.labels
        return labels

    @abstractmethod
    def sample(self, structure: Atoms) -> Any:
        """Preprocess one structure, on the CPU; done once per structure of a training run.

        Raises:
            ValueError: for an invalid structure, or one outside the model's domain.
        """

    @abstractmethod
    def size(self, sample: Any) -> tuple[int, int]:
        """Number of rows of a sample, such as atoms, and the width to which they are padded."""

    @abstractmethod
    def collate(self, samples: Sequence[Any]) -> Any:
        """Samples as one batch, on the device and in the precision of the weights."""

    @abstractmethod
    def embed(self, batch: Any) -> Tensor:
        """Features of each structure [n_systems, n_features]; sets `statistics`."""

    def calibrate(self, samples: Sequence[Any]) -> None:
        """Set statistics of the training structures, such as input scales, once before training."""

    def compile_functions(self, mode: CompileMode) -> None:
        """Compile functions of the model, see `backends.compile_function`; by default none."""

    def prepare(self, structures: Sequence[Atoms]) -> Any:
        """Preprocess and batch structures."""
        return self.collate([self.sample(structure) for structure in structures])

    def forward(self, batch: Any) -> Tensor:
        """Logits of the classes, before division by the temperature [n_systems, n_classes]."""
        logits: Tensor = self.head(self.embed(batch))
        return logits

    def values(self, features: Tensor) -> Tensor:
        """Prediction of the labelled quantity by the auxiliary head [n_systems], in units of `value_scale`."""
        values: Tensor = self.value_head(features)
        return values[:, 0]

    def out_of_distribution(self, features: Tensor) -> Tensor:
        """Out-of-distribution score of features [n_systems]; above 1 for one in a hundred validation structures."""
        whitened = (features - self.feature_mean) @ self.feature_whitening
        distance: Tensor = torch.linalg.vector_norm(whitened, dim=-1)
        return distance / self.novelty_scale
