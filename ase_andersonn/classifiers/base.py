"""What a classifier of structures has to be.

    p = softmax(W φ(x) / T),    novelty = |L⁻¹ (φ(x) − φ̄)| / d₉₉

φ are a structure's features, independent of its cell, orientation and order of atoms; `W` is the head, `T` the
temperature that calibrates the probabilities on validation data (Guo et al., arXiv 1706.04599). φ̄ and `L Lᵀ` are mean
and covariance of the features of the training structures (Lee et al., arXiv 1807.03888), `d₉₉` the distance that one
in a hundred validation structures exceeds.
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


class ClassifierConfig(Protocol):
    """Any config dataclass that names the labels."""

    @property
    def labels(self) -> LabelSet:
        """Labels of the classes."""


@dataclass(frozen=True)
class SolveStatistics:
    """What the last solve of a model's fixed point did.

    Attributes:
        steps: evaluations until each structure stopped, int64 [n_systems].
        residual: relative residual of each structure, float64 [n_systems].
        converged: bool [n_systems].
        evaluations: applications of the cell to the whole batch.
    """

    steps: Tensor
    residual: Tensor
    converged: Tensor
    evaluations: int


class ClassifierModel(nn.Module, ABC):
    """A network that gives structures features, and these a label.

    A model says how a structure becomes a sample (`sample`, once per structure: neighbours, images), how samples become
    a batch (`collate`), and what features a batch has (`embed`). Head, temperature and novelty are the same for all.

    Args:
        config: the config dataclass, with `labels`.
        n_features: width of the features.

    Attributes:
        config: the same.
        card: the model card, where the model came from a file.
        statistics: of the last solve; None for a model without a fixed point or before the first call.
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
        """What the model needs of one structure, on the CPU; made once and kept through a training run.

        Raises:
            ValueError: for a structure without a meaning, or one that the model cannot take.
        """

    @abstractmethod
    def size(self, sample: Any) -> tuple[int, int]:
        """Rows of a sample, such as its atoms, and the width that they are padded to."""

    @abstractmethod
    def collate(self, samples: Sequence[Any]) -> Any:
        """Samples as one batch, on the device and in the precision of the weights."""

    @abstractmethod
    def embed(self, batch: Any) -> Tensor:
        """Features of each structure [n_systems, n_features]; sets `statistics`."""

    def calibrate(self, samples: Sequence[Any]) -> None:
        """Look at the structures to be learnt once, before training, as to scale what the network sees of them."""

    def accelerate(self, mode: CompileMode) -> None:
        """Compile what pays, as `backends.compile_function` does; by default nothing."""

    def prepare(self, structures: Sequence[Atoms]) -> Any:
        """Structures as a batch."""
        return self.collate([self.sample(structure) for structure in structures])

    def forward(self, batch: Any) -> Tensor:
        """Logits of the classes, not yet divided by the temperature [n_systems, n_classes]."""
        logits: Tensor = self.head(self.embed(batch))
        return logits

    def values(self, features: Tensor) -> Tensor:
        """The auxiliary head's guess at the labelled quantity [n_systems], in units of `value_scale`."""
        values: Tensor = self.value_head(features)
        return values[:, 0]

    def novelty(self, features: Tensor) -> Tensor:
        """How far the features are from those of the training structures [n_systems]; above 1 is unusual."""
        whitened = (features - self.feature_mean) @ self.feature_whitening
        distance: Tensor = torch.linalg.vector_norm(whitened, dim=-1)
        return distance / self.novelty_scale
