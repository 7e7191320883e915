"""What the training of a classifier is made of."""

from dataclasses import dataclass, field
from typing import Any, Literal

from ase_andersonn.config import TorchCompile
from ase_andersonn.labels import LabelSet, label_set
from ase_andersonn.solvers.registry import solver_module

DEFAULT_EPOCHS = 60


@dataclass(frozen=True)
class ClassifierTrainConfig:
    """A training run.

    Attributes:
        train: files or glob patterns with labelled structures: extxyz, ASE databases, or CSV tables that name files.
        output: folder of the run; checkpoint, metrics, models and pictures go there.
        labels: name of one of the package's label sets, or a new one: name, labels, thresholds, unit.
        thresholds: the last thresholds of the set, where they are others.
        value: where the quantity or the name of the label is found: key of `atoms.info` or column of the table.
        path: column of a CSV table that names the structure's file, seen from the table's folder.
        validation: files with validation structures; where empty, `validation_fraction` of the training structures.
        validation_fraction: share of the structures held out.
        split_by: what is never divided between training and validation: structures of one formula or of one chemical
            system; "none" divides at random.
        split_seed: of the division; not of the weights, so that an ensemble has one validation set.
        test: files evaluated once, at the end of the run, each under a name.
        architecture: class name of the model.
        model: the model's config, without the labels.
        class_balance: b; a class of share `s` counts `s^-b`, from 0 (every structure alike) to 1 (every class alike).
        label_smoothing: probability spread over all classes.
        value_weight: weight of the auxiliary loss on the quantity itself.
        learning_rate: peak value.
        learning_rate_final: last value, as a fraction of the peak.
        warmup: share of the run during which the learning rate rises.
        weight_decay: SOAP's, on weight matrices alone.
        clip_norm: largest norm of the gradient.
        ema_decay: decay of the moving average of the weights.
        batch_size: structures in a step.
        block_atoms: atoms evaluated at once; a step may have several blocks.
        max_epochs: length of the run; 60 where neither this nor `max_minutes` is given.
        max_minutes: length of the run in minutes of wall time spent in it, instead of `max_epochs`.
        patience: the run ends after so many epochs without a better validation loss; None for never.
        validate_every: epochs between validations.
        checkpoint_minutes: longest time between checkpoints.
        device: "auto", "cpu", "cuda" or "cuda:0".
        dtype: "float32" or "float64".
        solver: class name of the fixed-point solver, see `AndersoNN`; "Anderson" has the window of the model's config.
        compile: "auto" (where a compiler exists), true or false.
        seed: of weights and batches.
    """

    train: tuple[str, ...]
    output: str
    labels: str | LabelSet = "electronic"
    thresholds: tuple[float, ...] = ()
    value: str = "value"
    path: str = "path"
    validation: tuple[str, ...] = ()
    validation_fraction: float = 0.1
    split_by: Literal["formula", "system", "none"] = "formula"
    split_seed: int = 0
    test: dict[str, str] = field(default_factory=dict)
    architecture: str = "GraphClassifier"
    model: dict[str, Any] = field(default_factory=dict)
    class_balance: float = 0.3
    label_smoothing: float = 0.03
    value_weight: float = 0.5
    learning_rate: float = 3e-3
    learning_rate_final: float = 0.01
    warmup: float = 0.03
    weight_decay: float = 0.05
    clip_norm: float = 5.0
    ema_decay: float = 0.999
    batch_size: int = 64
    block_atoms: int = 1200
    max_epochs: int | None = None
    max_minutes: float | None = None
    patience: int | None = None
    validate_every: int = 1
    checkpoint_minutes: float = 5.0
    device: str = "auto"
    dtype: str = "float32"
    solver: str = "Anderson"
    compile: TorchCompile = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.train:
            raise ValueError("train is empty; give at least one file or glob pattern with labelled structures.")
        if self.max_epochs is not None and self.max_minutes is not None:
            raise ValueError(
                f"max_epochs is {self.max_epochs} and max_minutes is {self.max_minutes}; give one of the two."
            )
        if "labels" in self.model:
            raise ValueError("labels stand beside `model` in the config, not in it.")
        solver_module(self.solver)  # raises for an unknown name
        for name, low, high in RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name} is {value}; it has to lie between {low:g} and {high:g}.")
        self.label_set()

    def label_set(self) -> LabelSet:
        """The labels that are learnt."""
        if isinstance(self.labels, LabelSet):
            return self.labels.at(*self.thresholds) if self.thresholds else self.labels
        return label_set(self.labels, self.thresholds)

    @property
    def n_epochs(self) -> int | None:
        """Length of the run in epochs; None where it is measured in minutes."""
        return None if self.max_minutes is not None else self.max_epochs or DEFAULT_EPOCHS


MAY_CHANGE_ON_RESUME = (
    "output",
    "test",
    "max_epochs",
    "max_minutes",
    "patience",
    "validate_every",
    "checkpoint_minutes",
    "device",
    "compile",
)
"""Fields that a resumed run may change; all others belong to what the checkpoint holds."""

LARGE = float("inf")
RANGES = (
    ("validation_fraction", 0.0, 0.9),
    ("class_balance", 0.0, 1.0),
    ("label_smoothing", 0.0, 0.9),
    ("value_weight", 0.0, LARGE),
    ("learning_rate", 0.0, LARGE),
    ("learning_rate_final", 0.0, 1.0),
    ("warmup", 0.0, 1.0),
    ("weight_decay", 0.0, LARGE),
    ("clip_norm", 1e-12, LARGE),
    ("ema_decay", 0.0, 1.0 - 1e-9),
    ("batch_size", 1, LARGE),
    ("block_atoms", 1, LARGE),
    ("max_epochs", 1, LARGE),
    ("max_minutes", 1e-6, LARGE),
    ("patience", 1, LARGE),
    ("validate_every", 1, LARGE),
    ("checkpoint_minutes", 0.0, LARGE),
)
