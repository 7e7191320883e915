"""What a training run is made of: data, model, loss, optimiser, budget."""

from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar

from ase_andersonn.config import TorchCompile

LARGE = float("inf")


@dataclass(frozen=True)
class LabelKeys:
    """Names of the labels in files: in the results of the attached calculator, in `atoms.info` or `atoms.arrays`."""

    energy: str = "energy"
    forces: str = "forces"
    stress: str = "stress"


@dataclass(frozen=True)
class RunConfig:
    """Fields that training runs of potentials and of classifiers share.

    Attributes:
        train: files or glob patterns with the labelled training structures.
        output: folder of the run; checkpoint, metrics, models and pictures go there.
        validation: files or patterns with validation structures; where empty, `validation_fraction` of those of
            training.
        validation_fraction: share of the structures held out.
        architecture: class name of the model.
        model: the model's config.
        learning_rate: peak value.
        learning_rate_final: last value, as a fraction of the peak.
        warmup: share of the run during which the learning rate rises.
        weight_decay: SOAP's, on weight matrices alone.
        clip_norm: largest norm of the gradient.
        ema_decay: decay of the moving average of the weights.
        max_epochs: length of the run; `DEFAULT_EPOCHS` where neither this nor `max_minutes` is given.
        max_minutes: length of the run in minutes of wall time spent in it, instead of `max_epochs`.
        validate_every: epochs between validations.
        checkpoint_minutes: longest time between checkpoints.
        solver: class name of the fixed-point solver, see `AndersoNN`.
        device: "auto", "cpu", "cuda" or "cuda:0".
        dtype: "float32" or "float64".
        compile: "auto" (where a compiler exists), true or false.
        seed: of weights and batches.
    """

    train: tuple[str, ...]
    output: str
    validation: tuple[str, ...] = ()
    validation_fraction: float = 0.05
    architecture: str = ""
    model: dict[str, Any] = field(default_factory=dict)
    learning_rate: float = 2e-3
    learning_rate_final: float = 0.01
    warmup: float = 0.02
    weight_decay: float = 1e-4
    clip_norm: float = 10.0
    ema_decay: float = 0.999
    max_epochs: int | None = None
    max_minutes: float | None = None
    validate_every: int = 1
    checkpoint_minutes: float = 5.0
    solver: str = "Anderson"
    device: str = "auto"
    dtype: str = "float32"
    compile: TorchCompile = False
    seed: int = 0

    DEFAULT_EPOCHS: ClassVar[int] = 100
    MAY_CHANGE_ON_RESUME: ClassVar[tuple[str, ...]] = (
        "output",
        "max_epochs",
        "max_minutes",
        "validate_every",
        "checkpoint_minutes",
        "device",
        "compile",
    )
    """Fields that a resumed run may change; all others belong to what the checkpoint holds."""
    RANGES: ClassVar[dict[str, tuple[float, float]]] = {
        "validation_fraction": (0.0, 0.9),
        "learning_rate": (0.0, LARGE),
        "learning_rate_final": (0.0, 1.0),
        "warmup": (0.0, 1.0),
        "weight_decay": (0.0, LARGE),
        "clip_norm": (1e-12, LARGE),
        "ema_decay": (0.0, 1.0 - 1e-9),
        "max_epochs": (1, LARGE),
        "max_minutes": (1e-6, LARGE),
        "validate_every": (1, LARGE),
        "checkpoint_minutes": (0.0, LARGE),
        "seed": (0, LARGE),
    }
    """Smallest and largest allowed values."""

    def __post_init__(self) -> None:
        if not self.train:
            raise ValueError("train is empty; give at least one file or glob pattern with labelled structures.")
        if self.max_epochs is not None and self.max_minutes is not None:
            raise ValueError(
                f"max_epochs is {self.max_epochs} and max_minutes is {self.max_minutes}; give one of the two."
            )
        for name, (low, high) in self.RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name} is {value}; it has to lie between {low:g} and {high:g}.")
        if self.solver != RunConfig.solver:
            from ase_andersonn.solvers.registry import solver_module  # loads torch

            solver_module(self.solver)  # raises for an unknown name

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Default values, which runs had before a field was added."""
        return {f.name: f.default for f in fields(cls) if f.default is not MISSING}

    @property
    def n_epochs(self) -> int | None:
        """Length of the run in epochs; None where it is measured in minutes."""
        return None if self.max_minutes is not None else self.max_epochs or self.DEFAULT_EPOCHS


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """A training run of a potential: the fields of `RunConfig`, and

    Attributes:
        validation_fraction: share of the frames held out, the same share of every chemical formula.
        model: the model's config; `elements` are those of the training frames where not given.
        compile: a compiled training step takes half to two thirds of the time; compiling takes some ten minutes, and
            several of these again in the next process. The validation runs as it is.
        seed: of weights, split and batches.
        labels: names of energy, forces and stress in the files.
        initial: a packaged model's name, or the path of a model of the same architecture, to begin with its weights
            instead of random ones (float32, as files hold them). What is learnt may be another level of theory: the
            reference energies of the elements in the training frames are moved to the training energies. It says sizes,
            elements and reference energies, so `model` and `reference_energies` are left out.
        reference_energies: eV per element symbol; those not given are fitted to the training energies.
        energy_weight: weight of the energy loss.
        energy_weight_final: its value at the end of the run; linear in the progress from `energy_ramp_start` on.
        energy_ramp_start: progress (0 to 1) at which the energy weight starts to move.
        forces_weight: weight of the force loss.
        stress_weight: weight of the stress loss.
        huber_delta: where the loss turns from square to linear, in units of the element's scale.
        batch_atoms: atoms in a batch, at most (a larger frame is a batch of its own).
        share_elements: learn the parameters of each element as a function of its properties (group, period, radius,
            electronegativity, …) plus a residual, so that elements with few frames learn from those they resemble.
        balance: draw frames of rarer sets of elements more often, so that each set has about as many atoms in an epoch.
        tolerance: energy tolerance of the equilibrium, eV/atom.
    """

    architecture: str = "DEQAttention"
    labels: LabelKeys = field(default_factory=LabelKeys)
    initial: str | None = None
    reference_energies: dict[str, float] = field(default_factory=dict)
    energy_weight: float = 4.0
    energy_weight_final: float | None = None
    energy_ramp_start: float = 0.5
    forces_weight: float = 1.0
    stress_weight: float = 0.5
    huber_delta: float = 0.02
    batch_atoms: int = 220
    share_elements: bool = False
    balance: bool = False
    tolerance: float = 1e-6

    RANGES: ClassVar[dict[str, tuple[float, float]]] = RunConfig.RANGES | {
        "energy_weight": (0.0, LARGE),
        "energy_weight_final": (0.0, LARGE),
        "energy_ramp_start": (0.0, 1.0),
        "forces_weight": (0.0, LARGE),
        "stress_weight": (0.0, LARGE),
        "huber_delta": (1e-9, LARGE),
        "batch_atoms": (1, LARGE),
        "tolerance": (1e-16, 1.0),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.initial is not None and (self.model or self.reference_energies):
            raise ValueError(
                f"initial is {self.initial!r}, which has sizes and reference energies; leave out model and "
                "reference_energies."
            )
        if not any(self.learnt.values()):
            raise ValueError("energy_weight, forces_weight and stress_weight are all 0: nothing would be learnt.")

    @property
    def learnt(self) -> dict[str, bool]:
        """Which labels the loss asks for at some time."""
        return {
            "energy": bool(self.energy_weight or self.energy_weight_final),
            "forces": bool(self.forces_weight),
            "stress": bool(self.stress_weight),
        }
