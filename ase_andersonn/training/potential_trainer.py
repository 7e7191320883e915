"""Training of a potential: loss, validation and results of a `TrainingLoop`."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ase_andersonn.backends import own_torch_state, threads_for
from ase_andersonn.checkpoints.checkpoint import save_model
from ase_andersonn.config import to_dict
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.pretrained.catalog import CHECKPOINT

from .checks.learned import check_learned, relative_rmse
from .config import TrainConfig
from .ensemble import train_from_seeds
from .loop import MAX_SKIPPED_IN_A_ROW, TrainingLoop
from .losses import LossWeights, loss_terms
from .metrics import EvaluationReport, as_numbers, predict, report
from .optimizer import is_decayed
from .progress import BEST, CURVE, LAST, Progress, folder_lock, should_resume
from .report import epoch_text, learning_curve
from .schedule import loss_weights
from .setup import WITHOUT_ENERGIES, TrainingSetup

logger = logging.getLogger(__name__)


class Trainer(TrainingLoop):
    """One training run of a potential in `config.output`.

    Args:
        config: the run.
        experiment: data and model, made from the config where not given.
        progress_bar: whether to show one; where not given, only on a terminal.
    """

    config: TrainConfig
    model: EnergyModel

    @own_torch_state()
    def __init__(
        self, config: TrainConfig, experiment: TrainingSetup | None = None, *, progress_bar: bool | None = None
    ) -> None:
        self.experiment = experiment or TrainingSetup.from_config(config)
        batches = self.experiment.train.sampler(
            batch_atoms=config.batch_atoms, seed=config.seed, balance=config.balance
        )
        super().__init__(
            config,
            self.experiment.model,
            batches,
            rows=self.experiment.rows,
            progress_bar=progress_bar,
        )

    def fit(self) -> Progress:
        """See `TrainingLoop.fit`."""
        sizes = [n for data in (self.experiment.train, self.experiment.validation) for n in data.n_atoms]
        with threads_for(max(min(self.config.batch_atoms, sum(sizes)), *sizes)):
            return super().fit()

    def backward(self, indices: list[int]) -> dict[str, Tensor]:
        """See `TrainingLoop.backward`."""
        config = self.config
        batch = self.experiment.batch(self.experiment.train, indices)
        predicted = predict(self.model, batch, config.tolerance, config.compile, config.solver)
        terms = loss_terms(predicted, batch.labels, batch.systems, self.experiment.scales, config.huber_delta)
        loss = terms.total(loss_weights(self.progress, config))
        loss.backward()
        return {"loss": loss, "energy": terms.energy, "forces": terms.forces, "stress": terms.stress}

    def validate(self) -> dict[str, Any] | None:
        """See `TrainingLoop.validate`."""
        if not len(self.experiment.validation):
            return None
        config = self.config
        result = report(
            self.model,
            self.experiment.validation,
            batch_atoms=config.batch_atoms,
            tolerance=config.tolerance,
            compile_mode=False,
            solver=config.solver,
        )
        loss = self._validation_loss(result)
        numbers = {"loss": loss, "errors": as_numbers(result.errors), "relative_rmse": self._shares(result)}
        if self.record_best(loss):
            self._save_model(BEST, numbers)
        return numbers

    def begin(self) -> dict[str, Any] | None:
        """See `TrainingLoop.begin`. Weights that are trained already are the first that may be the best."""
        return None if self.config.initial is None else self.validate()

    def _shares(self, result: EvaluationReport) -> dict[str, float]:
        """`relative_rmse` of what the loss asks for."""
        learnt = self.config.learnt
        return {name: share for name, share in relative_rmse(self.model, result).items() if learnt[name]}

    def _validation_loss(self, result: EvaluationReport) -> float:
        config = self.config
        terms = loss_terms(
            result.predicted, result.labelled, result.systems, self.experiment.scales.cpu().double(), config.huber_delta
        )
        # The final weights all along, so that losses of different epochs can be compared.
        final = config.energy_weight if config.energy_weight_final is None else config.energy_weight_final
        return terms.total(LossWeights(final, config.forces_weight, config.stress_weight)).item()

    def _save_model(self, name: str, validation: dict[str, Any] | None) -> None:
        p = self.position
        card: dict[str, Any] = {
            "combinations": self.experiment.train.combinations(),
            "pairs": sorted(self.experiment.train.min_distance()),
            "min_atoms": min(self.experiment.train.n_atoms),
            "periodic": self.experiment.train.periodic(),
            "isolated": self.experiment.train.isolated_elements(),
            "odd_electrons": self.experiment.train.odd_electrons(),
            "training": {
                "config": shareable(self.config),
                "train_frames": len(self.experiment.train),
                "validation_frames": len(self.experiment.validation),
                "epoch": p.epoch,
                "step": p.step,
                "minutes": p.seconds / 60.0,
            },
        }
        limits = []
        if self.config.initial is not None:
            begun = Path(self.config.initial).name
            limits.append(f"Begun with {begun}: elements that the training frames do not hold are as it has them.")
        if not self.experiment.learns_energies:
            limits.append(f"No energies were learnt: {WITHOUT_ENERGIES}")
        if limits:
            card["limits"] = limits
        if validation is not None:
            card["validation"] = validation
        self.experiment.measure_environments(self.model)
        save_model(self.model, self.folder / name, card)

    def finish(self) -> None:
        """See `TrainingLoop.finish`."""
        with self.average.applied(self.model):
            self._save_model(LAST, None)
        records = self.log.read() if self.log.path.exists() else []
        if records:
            learning_curve(self.log.path, self.folder / CURVE)
        if self.finished and self.position.best is not None and self.position.best_epoch == 0:
            logger.warning(
                "no epoch was better on the validation frames than %s, so %s is that with the reference energies of "
                "these frames; try a learning_rate below %g, or more frames.",
                self.config.initial,
                BEST,
                self.config.learning_rate,
            )
        if self.finished and self.position.best is not None:
            epoch = self.position.best_epoch
            best = next((record for record in records if record["epoch"] == epoch), {})
            shares = best.get("validation", {}).get("relative_rmse", {})  # older runs have none
            for text in check_learned(shares, epoch, self.position.epoch):
                logger.warning("%s", text)

    def fingerprint(self) -> dict[str, str]:
        """See `TrainingLoop.fingerprint`."""
        return self.experiment.fingerprint()

    def summary(self) -> str:
        """See `TrainingLoop.summary`."""
        return self.experiment.summary()

    def epoch_text(self, record: Mapping[str, Any]) -> str:
        """See `TrainingLoop.epoch_text`."""
        return epoch_text(record)


def shareable(config: TrainConfig) -> dict[str, Any]:
    """The config for a model card: files by their names alone, since a model travels and folders do not."""
    values = {name: value for name, value in to_dict(config).items() if name != "output"}
    if config.initial is not None:
        values["initial"] = Path(config.initial).name
    return values | {name: [Path(file).name for file in values[name]] for name in ("train", "validation")}


@own_torch_state()
def train(
    config: TrainConfig, *, resume: bool = False, fresh: bool = False, progress_bar: bool | None = None
) -> Trainer:
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
        experiment = TrainingSetup.from_checkpoint(config) if go_on else TrainingSetup.from_config(config)
        trainer = Trainer(config, experiment, progress_bar=progress_bar)
        trainer.lock = lock
        if go_on:
            trainer.resume()
        else:  # not before the trainer is made: what it begins with may be the best model of the run that it replaces
            for name in (BEST, LAST, CHECKPOINT):
                (Path(config.output) / name).unlink(missing_ok=True)
        trainer.fit()
        return trainer


def train_committee(config: TrainConfig, n: int, *, resume: bool = False, fresh: bool = False) -> list[Trainer]:
    """The same run from `n` seeds, in `output/seed-…`; the best models are left as `output/ensemble/….safetensors`.

    With `resume`, members that are not finished go on; with `fresh` the committee is made anew. Stops at the first that
    is interrupted. `AndersoNN("output/ensemble")` is the committee. Where no validation frames are named, each member
    holds out others, so that every frame is in the training data of most members.

    Args:
        config: the run; its seed is that of the first member.
        n: members.
        resume, fresh: see `train`.

    Returns:
        the runs of this call.

    Raises:
        FileExistsError: if there is a checkpoint and neither `resume` nor `fresh`.
        ValueError: for no members, and for members that would begin with the same weights.
    """
    if config.initial is not None:
        raise ValueError(
            f"members that begin with the same weights ({config.initial}) hardly differ, and their spread would say "
            "nothing; leave out initial."
        )
    return train_from_seeds(
        config,
        n,
        lambda member: train(member, resume=resume, fresh=fresh),
        (BEST, LAST),
        is_done=lambda _: False,
        fresh=fresh,
    )


__all__ = ["MAX_SKIPPED_IN_A_ROW", "Trainer", "is_decayed", "shareable", "train", "train_committee"]
