"""What the training of a classifier is made of."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from ase_andersonn.labels import LabelSet, label_set
from ase_andersonn.training.config import LARGE, RunConfig


@dataclass(frozen=True)
class ClassifierTrainConfig(RunConfig):
    """A training run of a classifier: the fields of `RunConfig`, and

    Attributes:
        train: files or glob patterns with labelled structures: extxyz, ASE databases, or CSV tables that name files.
        model: the model's config, without the labels.
        solver: "Anderson" has the window of the model's config.
        labels: name of one of the package's label sets, or a new one: name, labels, thresholds, unit.
        thresholds: the last thresholds of the set, where they are others.
        value: where the quantity or the name of the label is found: key of `atoms.info` or column of the table.
        path: column of a CSV table that names the structure's file, seen from the table's folder.
        split_by: what is never divided between training and validation: structures of one formula or of one chemical
            system; "none" divides at random.
        split_seed: of the division; not of the weights, so that an ensemble has one validation set.
        test: files evaluated once, at the end of the run, each under a name.
        class_balance: b; a class of share `s` counts `s^-b`, from 0 (every structure alike) to 1 (every class alike).
        label_smoothing: probability spread over all classes.
        value_weight: weight of the auxiliary loss on the quantity itself.
        batch_size: structures in a step.
        block_atoms: atoms evaluated at once; a step may have several blocks.
        patience: the run ends after so many epochs without a better validation loss; None for never.
    """

    validation_fraction: float = 0.1
    architecture: str = "GraphClassifier"
    learning_rate: float = 3e-3
    warmup: float = 0.03
    weight_decay: float = 0.05
    clip_norm: float = 5.0
    labels: str | LabelSet = "electronic"
    thresholds: tuple[float, ...] = ()
    value: str = "value"
    path: str = "path"
    split_by: Literal["formula", "system", "none"] = "formula"
    split_seed: int = 0
    test: dict[str, str] = field(default_factory=dict)
    class_balance: float = 0.3
    label_smoothing: float = 0.03
    value_weight: float = 0.5
    batch_size: int = 64
    block_atoms: int = 1200
    patience: int | None = None

    DEFAULT_EPOCHS: ClassVar[int] = 60
    MAY_CHANGE_ON_RESUME: ClassVar[tuple[str, ...]] = (*RunConfig.MAY_CHANGE_ON_RESUME, "test", "patience")
    RANGES: ClassVar[dict[str, tuple[float, float]]] = RunConfig.RANGES | {
        "class_balance": (0.0, 1.0),
        "label_smoothing": (0.0, 0.9),
        "value_weight": (0.0, LARGE),
        "batch_size": (1, LARGE),
        "block_atoms": (1, LARGE),
        "patience": (1, LARGE),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if "labels" in self.model:
            raise ValueError("labels stand beside `model` in the config, not in it.")
        self.label_set()

    def label_set(self) -> LabelSet:
        """The labels that are learnt."""
        if isinstance(self.labels, LabelSet):
            return self.labels.at(*self.thresholds) if self.thresholds else self.labels
        return label_set(self.labels, self.thresholds)
