"""Training of a classifier: loss, validation and results of a `TrainingLoop`.

    l = Σ_i w_(y_i) CE(W φ_i, y_i) / n + a Σ_i Huber(v_i − ṽ_i) / n,    w_y ∝ s_y^-b

`s_y` is the share of a class, `ṽ` the quantity that the labels come from in units of its spread: what a value near a
threshold and one far from it have in common is not lost to the labels.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import Tensor

from ase_andersonn.atomic_write import atomic_write
from ase_andersonn.backends import own_torch_state, resolve_device, resolve_dtype
from ase_andersonn.checkpoints.checkpoint import load_classifier, save_model
from ase_andersonn.checkpoints.registry import architecture
from ase_andersonn.classifiers.base import ClassifierModel
from ase_andersonn.config import from_dict, to_dict
from ase_andersonn.pretrained.catalog import CHECKPOINT
from ase_andersonn.solvers.registry import solver_named
from ase_andersonn.training.ensemble import train_from_seeds
from ase_andersonn.training.loop import TrainingLoop
from ase_andersonn.training.progress import BEST, CURVE, folder_lock, should_resume
from ase_andersonn.training.report import finite_json

from .calibration import fit_novelty, fit_temperature
from .config import ClassifierTrainConfig
from .data import LabelledSamples, ShuffledBatches, split
from .metrics import ClassMetrics, class_metrics
from .report import calibration_picture, confusion_picture, epoch_text, learning_curve
from .table import Entry, read_entries

MODEL, TEST = "model.safetensors", "test.json"
CALIBRATE_ON = 2000
"""Training structures that the model looks at to scale its inputs."""


class ClassifierTrainer(TrainingLoop):
    """One training run of a classifier in `config.output`.

    Args:
        config: the run.
        progress_bar: whether to show one; where not given, only on a terminal.
    """

    config: ClassifierTrainConfig
    model: ClassifierModel

    @own_torch_state()
    def __init__(self, config: ClassifierTrainConfig, *, progress_bar: bool | None = None) -> None:
        train, validation = entries_of(config)
        self.periodic = sorted({int(entry.atoms.pbc.sum()) for entry in train})
        model = build_model(config)
        self.train = LabelledSamples.of(model, train, progress_bar=progress_bar)
        self.validation = LabelledSamples.of(model, validation, progress_bar=progress_bar)
        every = max(len(self.train) // CALIBRATE_ON, 1)
        model.calibrate(self.train.samples[::every])
        model.value_scale.copy_(_value_scale(self.train.values))
        model.to(resolve_device(config.device), resolve_dtype(config.dtype))
        model.compile_functions(config.compile)
        model.train()
        batches = ShuffledBatches(len(self.train), config.batch_size, config.seed)
        super().__init__(config, model, batches, progress_bar=progress_bar)
        self.weights = class_weights(self.train.targets, len(model.labels), config.class_balance)

    @property
    def finished(self) -> bool:
        """Whether the run has used its budget, or its patience."""
        p, patience = self.position, self.config.patience
        return super().finished or (patience is not None and p.best is not None and p.epoch - p.best_epoch >= patience)

    def backward(self, indices: list[int]) -> dict[str, Tensor]:
        """See `TrainingLoop.backward`."""
        terms = {"loss": torch.zeros(()), "labels": torch.zeros(()), "value": torch.zeros(())}
        for block in self.train.blocks(indices, self.config.block_atoms):
            labels, value = (part / len(indices) for part in self._losses(block))
            loss = labels + self.config.value_weight * value
            loss.backward()
            for name, part in (("loss", loss), ("labels", labels), ("value", value)):
                terms[name] += part.detach().cpu()
        return terms

    def _losses(self, block: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Sums over the samples of a block."""
        model = self.model
        features = model.embed(model.collate([self.train.samples[i] for i in block]))
        targets, values = (x[list(block)].to(features.device) for x in (self.train.targets, self.train.values))
        labels = torch.nn.functional.cross_entropy(
            model.head(features),
            targets,
            weight=self.weights.to(features),
            reduction="sum",
            label_smoothing=self.config.label_smoothing,
        )
        mean, spread = model.value_scale
        known = values.isfinite()
        scaled = ((values - mean) / spread)[known].to(features.dtype)
        return labels, torch.nn.functional.huber_loss(model.values(features)[known], scaled, reduction="sum")

    def validate(self) -> dict[str, Any] | None:
        """See `TrainingLoop.validate`. The temperature is fitted to the validation structures."""
        if not len(self.validation):
            return None
        logits = evaluate(self.model, self.validation, self.config.block_atoms)[0]
        temperature = fit_temperature(logits, self.validation.targets)
        self.model.temperature.fill_(temperature)
        metrics = class_metrics((logits / temperature).softmax(1), self.validation.targets)
        numbers = {"loss": metrics.nll, "temperature": temperature, **metrics.as_numbers()}
        if self.record_best(metrics.nll):
            save_model(self.model, self.folder / BEST, self._card(numbers))
        return numbers

    def finish(self) -> None:
        """See `TrainingLoop.finish`. Once the run is over, its best weights are completed and tested."""
        if self.log.path.exists() and self.log.path.stat().st_size:
            learning_curve(self.log.path, self.folder / CURVE)
        if self.finished:
            with self.average.applied(self.model):
                if not (self.folder / BEST).exists():
                    save_model(self.model, self.folder / BEST, self._card({}))
            complete(self)

    def fingerprint(self) -> dict[str, str]:
        """See `TrainingLoop.fingerprint`."""
        return {"train": self.train.digest, "validation": self.validation.digest}

    def summary(self) -> str:
        """See `TrainingLoop.summary`."""
        counts = torch.bincount(self.train.targets, minlength=len(self.model.labels)).tolist()
        counted = ", ".join(f"{n} {name}" for name, n in zip(self.model.labels.labels, counts, strict=True))
        n_parameters = sum(p.numel() for p in self.model.parameters())
        return (
            f"{len(self.train)} training structures ({counted}), {len(self.validation)} validation structures, "
            f"{n_parameters} parameters"
        )

    def epoch_text(self, record: Mapping[str, Any]) -> str:
        """See `TrainingLoop.epoch_text`."""
        return epoch_text(record)

    def _card(self, validation: Mapping[str, Any]) -> dict[str, Any]:
        p = self.position
        return {
            "labels": to_dict(self.model.labels),
            "periodic_directions": self.periodic,
            "training": {
                "config": config_in_card(self.config),
                "structures": len(self.train),
                "validation_structures": len(self.validation),
                "epoch": p.epoch,
                "step": p.step,
                "minutes": p.seconds / 60.0,
            },
            "validation": finite_json(validation),
        }


def config_in_card(config: ClassifierTrainConfig) -> dict[str, Any]:
    """The training run in a model's card; of files their names alone."""
    found = {k: v for k, v in to_dict(config).items() if k not in ("output", "test")}
    return found | {name: [Path(file).name for file in found[name]] for name in ("train", "validation")}


def complete(run: ClassifierTrainer) -> None:
    """The run's best weights with what is measured at its end: novelty, errors on the test files, pictures."""
    model = load_classifier(run.folder / BEST).to(resolve_device(run.config.device))
    cap = run.config.block_atoms
    train = evaluate(model, run.train, cap)[1]
    logits, features = evaluate(model, run.validation, cap)
    fit_novelty(model, train, features)
    tests: dict[str, ClassMetrics] = {}
    last = logits, run.validation.targets
    for name, pattern in run.config.test.items():
        data = LabelledSamples.of(model, _entries(run.config, (pattern,)), progress_bar=run.progress_bar)
        last = evaluate(model, data, cap)[0], data.targets
        tests[name] = class_metrics((last[0] / model.temperature.cpu()).softmax(1), data.targets)
        _pictures(model, *last, run.folder, f"_{name}")
    if len(run.validation):
        _pictures(model, logits, run.validation.targets, run.folder, "")
    numbers = finite_json({name: metrics.as_numbers() for name, metrics in tests.items()})
    save_model(model, run.folder / MODEL, {**model.card, "test": numbers})
    if tests:
        atomic_write(run.folder / TEST, (json.dumps(numbers, indent=2) + "\n").encode())


def _pictures(model: ClassifierModel, logits: Tensor, targets: Tensor, folder: Path, name: str) -> None:
    probabilities = (logits / model.temperature.cpu()).softmax(1)
    confusion_picture(class_metrics(probabilities, targets).confusion, model.labels, folder / f"confusion{name}.png")
    calibration_picture(probabilities, targets, folder / f"calibration{name}.png")


@own_torch_state(grad=False)
def evaluate(model: ClassifierModel, data: LabelledSamples, block_rows: int) -> tuple[Tensor, Tensor]:
    """Logits [n, n_classes] and features [n, n_features] of all samples, on the CPU."""
    logits, features = torch.zeros(len(data), len(model.labels)), torch.zeros(len(data), model.n_features)
    training = model.training
    model.eval()
    for block in data.blocks(range(len(data)), block_rows):
        found = model.embed(model.collate([data.samples[i] for i in block]))
        logits[block], features[block] = model.head(found).float().cpu(), found.float().cpu()
    model.train(training)
    return logits, features


def class_weights(targets: Tensor, n_classes: int, balance: float) -> Tensor:
    """`s_y^-b`, scaled to a mean of 1 over the samples [n_classes]."""
    weights = torch.bincount(targets, minlength=n_classes).clamp(min=1).float() ** -balance
    return weights / weights[targets].mean()


def _value_scale(values: Tensor) -> Tensor:
    known = values[values.isfinite()]
    if len(known) < 2:
        return torch.tensor([0.0, 1.0])
    return torch.stack([known.mean(), known.std().clamp(min=1e-6)])


def entries_of(config: ClassifierTrainConfig) -> tuple[list[Entry], list[Entry]]:
    """Training and validation structures.

    Raises:
        ValueError: if fewer than two classes occur in the training structures.
    """
    entries = _entries(config, config.train)
    if config.validation:
        train, validation = entries, _entries(config, config.validation)
    else:
        train, validation = split(entries, config.validation_fraction, config.split_by, config.split_seed)
    if len({entry.target for entry in train}) < 2:
        raise ValueError(f"the {len(train)} training structures have one label; two at least have to occur.")
    return train, validation


def _entries(config: ClassifierTrainConfig, patterns: Sequence[str]) -> list[Entry]:
    return read_entries(patterns, config.label_set(), value=config.value, path=config.path)


def build_model(config: ClassifierTrainConfig) -> ClassifierModel:
    """The model of the config, its weights drawn from the config's seed.

    Raises:
        ValueError: for an unknown architecture or a key its config does not have.
    """
    cls: Any = architecture(ClassifierModel, config.architecture)
    labels = to_dict(config.label_set())
    model_config = from_dict(get_type_hints(cls.__init__)["config"], {**config.model, "labels": labels}, "model")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)  # torch.manual_seed sets the user's on GPUs as well
        model: ClassifierModel = cls(model_config)
    if config.solver != ClassifierTrainConfig.solver:  # which has the window of the model's config
        model.solver = solver_named(config.solver)
    return model


@own_torch_state()
def train_classifier(
    config: ClassifierTrainConfig, *, resume: bool = False, fresh: bool = False, progress_bar: bool | None = None
) -> ClassifierTrainer:
    """Run the training that the config describes.

    Args:
        config: the run.
        resume: go on from the checkpoint in `config.output`, if there is one.
        fresh: start anew although there is a checkpoint; it is replaced.
        progress_bar: whether to show one; where not given, only on a terminal.

    Raises:
        FileExistsError: if there is a checkpoint and neither `resume` nor `fresh`.
        InUseError: if another process trains in `config.output`; the text names it.
    """
    lock = folder_lock(config.output)
    with lock:
        go_on = should_resume(config.output, resume=resume, fresh=fresh)
        trainer = ClassifierTrainer(config, progress_bar=progress_bar)
        trainer.lock = lock
        if go_on:
            trainer.resume()
        else:
            for name in (BEST, MODEL, TEST, CHECKPOINT):
                (Path(config.output) / name).unlink(missing_ok=True)
        trainer.fit()
        return trainer


def train_ensemble(
    config: ClassifierTrainConfig, n: int, *, resume: bool = False, fresh: bool = False
) -> list[ClassifierTrainer]:
    """The same run from `n` seeds, in `output/seed-…`; the models are left as `output/ensemble/….safetensors`.

    With `resume`, members that have their model, of the same config, are left as they are; with `fresh` the ensemble is
    made anew. Stops at the first that is interrupted.

    Returns:
        the members that were trained in this call.
    """
    return train_from_seeds(
        config,
        n,
        lambda member: train_classifier(member, resume=resume, fresh=fresh),
        (MODEL,),
        is_done=lambda member: resume and _has_model(member),
        fresh=fresh,
    )


def _has_model(config: ClassifierTrainConfig) -> bool:
    """Whether the run is over, and was this one but for what may change on resume."""
    path = Path(config.output) / MODEL
    if not path.exists():
        return False
    there = config.defaults() | load_classifier(path).card["training"]["config"]
    asked = json.loads(json.dumps(config_in_card(config)))
    return all(there.get(name) == value for name, value in asked.items() if name not in config.MAY_CHANGE_ON_RESUME)
