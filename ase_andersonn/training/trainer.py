"""Training: SOAP on the losses of `losses.py`, averaged weights, validation, checkpoints that resume exactly."""

import logging
import math
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ase_andersonn.config import from_dict, to_dict, write_config
from ase_andersonn.models.base import EnergyModel
from ase_andersonn.models.checkpoint import save_model

from .config import MAY_CHANGE_ON_RESUME, TrainConfig
from .ema import WeightAverage
from .interrupt import Interrupt
from .losses import LossWeights, loss_terms
from .metrics import EvaluationReport, as_numbers, predict, report
from .report import MetricsLog, epoch_text, learning_curve
from .schedule import learning_rate, loss_weights
from .setup import Experiment
from .soap import SOAP
from .state import gather, read_checkpoint, scatter, write_checkpoint

logger = logging.getLogger(__name__)

CHECKPOINT, METRICS, BEST, LAST = "checkpoint.safetensors", "metrics.jsonl", "best.safetensors", "last.safetensors"
CONFIG, CURVE = "config.yaml", "learning_curve.png"
TERMS = ("loss", "energy", "forces", "stress")
MAX_SKIPPED_IN_A_ROW = 50


@dataclass
class Position:
    """Where a run stands.

    Attributes:
        epoch: whole epochs done.
        batch: batches done of the present epoch.
        step: batches done in all.
        seconds: spent in the run.
        skipped: steps left out because a gradient was not finite.
        skipped_in_a_row: of these, the last ones without a good step between.
        best: lowest validation loss; None before the first.
        sums: of the training losses of the present epoch.
        counted: steps in these sums.
        metrics_size: bytes of the metrics file that belong to the checkpoint.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    skipped: int = 0
    skipped_in_a_row: int = 0
    best: float | None = None
    sums: dict[str, float] = field(default_factory=dict)
    counted: int = 0
    metrics_size: int = 0


class Trainer:
    """One training run in `config.output`.

    Args:
        config: the run.
        experiment: data and model, made from the config where not given.
        progress_bar: whether to show one; where not given, only on a terminal.
    """

    def __init__(
        self, config: TrainConfig, experiment: Experiment | None = None, *, progress_bar: bool | None = None
    ) -> None:
        self.config = config
        self.folder = Path(config.output)
        self.experiment = experiment or Experiment.from_config(config)
        self.model: EnergyModel = self.experiment.model
        self.sampler = self.experiment.train.sampler(
            batch_atoms=config.batch_atoms, seed=config.seed, balance=config.balance
        )
        self.optimizer = make_optimizer(self.model, config)
        self.average = WeightAverage(self.model, config.ema_decay)
        self.position = Position()
        self.random_state = torch.Generator().manual_seed(config.seed).get_state()
        self.log = MetricsLog(self.folder / METRICS)
        self.progress_bar = progress_bar
        self._batches = self.sampler.epoch(0)
        self._tick = self._saved = time.monotonic()

    # Progress

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0 to 1."""
        p, n_epochs = self.position, self.config.n_epochs
        if n_epochs is None:
            return min(p.seconds / (60.0 * (self.config.max_minutes or 0.0)), 1.0)
        return min((p.epoch + p.batch / len(self._batches)) / n_epochs, 1.0)

    @property
    def finished(self) -> bool:
        """Whether the run has used its epochs or its minutes."""
        return self.progress >= 1.0

    # The run

    def fit(self) -> Position:
        """Train until the budget is used or an interrupt (Ctrl-C, SIGTERM) asks to stop; both leave a checkpoint."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_config(self.config, self.folder / CONFIG)
        self.log.truncate(self.position.metrics_size)
        logger.info("%s", self.experiment.summary())
        disable = None if self.progress_bar is None else not self.progress_bar
        bar = tqdm(total=100.0, disable=disable, bar_format="{desc} {percentage:5.1f}%|{bar}| {elapsed} {postfix}")
        with torch.random.fork_rng(devices=[]), Interrupt() as interrupt, bar:
            torch.set_rng_state(self.random_state)
            self._tick = self._saved = time.monotonic()
            while not self.finished and not interrupt.asked:
                self._epoch(interrupt, bar)
            self.save_checkpoint()
        self._finish()
        return self.position

    def _epoch(self, interrupt: Interrupt, bar: "tqdm[Any]") -> None:
        p = self.position
        while p.batch < len(self._batches) and not self._out_of_time() and not interrupt.asked:
            self.step(self._batches[p.batch])
            self._show(bar)
            if time.monotonic() - self._saved > 60.0 * self.config.checkpoint_minutes:
                self.save_checkpoint()
        if p.batch == len(self._batches) or self._out_of_time():
            self._end_epoch()
            self.save_checkpoint()

    def _out_of_time(self) -> bool:
        return self.config.max_minutes is not None and self.finished

    def step(self, indices: list[int]) -> None:
        """One step of the optimiser on the frames of these indices."""
        p, config = self.position, self.config
        rate = learning_rate(
            self.progress, peak=config.learning_rate, final=config.learning_rate_final, warmup=config.warmup
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = self.experiment.batch(self.experiment.train, indices)
        self.optimizer.zero_grad(set_to_none=True)
        predicted = predict(self.model, batch, config.tolerance, config.compile)
        terms = loss_terms(predicted, batch.labels, batch.systems, self.experiment.scales, config.huber_delta)
        loss = terms.total(loss_weights(self.progress, config))
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
        if bool(torch.isfinite(norm)) and bool(torch.isfinite(loss)):
            self.optimizer.step()
            self.average.update(self.model)
            p.skipped_in_a_row = 0
            self._count((loss, terms.energy, terms.forces, terms.stress))
        else:
            self._skip(indices, loss)
        p.batch += 1
        p.step += 1
        self._advance_clock()

    def _skip(self, indices: list[int], loss: Tensor) -> None:
        p = self.position
        p.skipped += 1
        p.skipped_in_a_row += 1
        logger.warning("step %d skipped: gradient not finite (loss %g, frames %s)", p.step, loss.item(), indices)
        if p.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise RuntimeError(
                f"{p.skipped_in_a_row} steps in a row had a gradient that is not finite, "
                f"the last on training frames {indices}. Look at these frames, or lower learning_rate."
            )

    def _count(self, values: Iterable[Tensor]) -> None:
        p = self.position
        for name, value in zip(TERMS, values, strict=True):
            p.sums[name] = p.sums.get(name, 0.0) + value.item()
        p.counted += 1

    def _advance_clock(self) -> None:
        now = time.monotonic()
        self.position.seconds += now - self._tick
        self._tick = now

    def _end_epoch(self) -> None:
        p = self.position
        progress = 1.0 if self._out_of_time() else (p.epoch + 1) / (self.config.n_epochs or math.inf)
        p.epoch, p.batch = p.epoch + 1, 0
        self._batches = self.sampler.epoch(p.epoch)
        record: dict[str, Any] = {
            "epoch": p.epoch,
            "step": p.step,
            "minutes": p.seconds / 60.0,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "skipped_steps": p.skipped,
            "train": {name: total / max(p.counted, 1) for name, total in p.sums.items()},
        }
        p.sums, p.counted = {}, 0
        if len(self.experiment.validation) and (p.epoch % self.config.validate_every == 0 or progress >= 1.0):
            record["validation"] = self._validate()
        self._advance_clock()
        p.metrics_size = self.log.write(record)
        logger.info("%s", epoch_text(record))

    def _validate(self) -> dict[str, Any]:
        """Errors on the validation frames with the averaged weights; the best model so far is saved."""
        p, config = self.position, self.config
        with self.average.applied(self.model):
            result = report(
                self.model,
                self.experiment.validation,
                batch_atoms=config.batch_atoms,
                tolerance=config.tolerance,
                compile_mode=config.compile,
            )
            loss = self._validation_loss(result)
            numbers = {"loss": loss, "errors": as_numbers(result.errors)}
            if math.isfinite(loss) and (p.best is None or loss < p.best):
                p.best = loss
                self._save_model(BEST, numbers)
        return numbers

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
            "training": {
                "config": shareable(self.config),
                "train_frames": len(self.experiment.train),
                "validation_frames": len(self.experiment.validation),
                "epoch": p.epoch,
                "step": p.step,
                "minutes": p.seconds / 60.0,
            },
        }
        if validation is not None:
            card["validation"] = validation
        save_model(self.model, self.folder / name, card)

    def _finish(self) -> None:
        with self.average.applied(self.model):
            self._save_model(LAST, None)
        if self.log.path.exists() and self.log.path.stat().st_size:
            learning_curve(self.log.path, self.folder / CURVE)

    def _show(self, bar: "tqdm[Any]") -> None:
        p = self.position
        bar.n = 100.0 * self.progress
        loss = p.sums.get("loss", math.nan) / max(p.counted, 1)
        best = "" if p.best is None else f", best {p.best:.4f}"
        skipped = f", {p.skipped} skipped" if p.skipped else ""
        bar.set_postfix_str(f"epoch {p.epoch + 1}, loss {loss:.4f}{best}{skipped}", refresh=False)
        bar.update(0)

    # Checkpoints

    def save_checkpoint(self) -> None:
        """Write all that the rest of the run depends on."""
        state = {
            "position": asdict(self.position),
            "average_updates": self.average.updates,
            "config": to_dict(self.config),
            "data": self.experiment.fingerprint(),
        }
        write_checkpoint(self.folder / CHECKPOINT, gather(self.model, self.optimizer, self.average), state)
        self._saved = time.monotonic()

    def resume(self) -> None:
        """Go back to where the checkpoint of this run was written.

        Raises:
            FileNotFoundError: without a checkpoint.
            ValueError: if config or data are others than those of the checkpoint.
        """
        path = self.folder / CHECKPOINT
        tensors, state = read_checkpoint(path)
        self._check_same_run(path, state)
        scatter(tensors, self.model, self.optimizer, self.average)
        self.random_state = tensors["random/cpu"]
        self.average.updates = state["average_updates"]
        self.position = from_dict(Position, state["position"])
        self._batches = self.sampler.epoch(self.position.epoch)

    def _check_same_run(self, path: Path, state: dict[str, Any]) -> None:
        then, now = state["config"], to_dict(self.config)
        changed = [k for k in now if k not in MAY_CHANGE_ON_RESUME and now[k] != then.get(k)]
        if changed:
            said = "; ".join(f"{k}: {then.get(k)!r} then, {now[k]!r} now" for k in changed)
            raise ValueError(f"{path} belongs to a run with another config ({said}). Undo the change or start fresh.")
        if state["data"] != self.experiment.fingerprint():
            raise ValueError(f"{path} belongs to a run on other data: the frames have changed. Start fresh.")


def shareable(config: TrainConfig) -> dict[str, Any]:
    """The config for a model card: files by their names alone, since a model travels and folders do not."""
    values = {name: value for name, value in to_dict(config).items() if name != "output"}
    return values | {name: [Path(file).name for file in values[name]] for name in ("train", "validation")}


def make_optimizer(model: nn.Module, config: TrainConfig) -> SOAP:
    """SOAP that decays the weights of linear maps, and neither biases, gains nor embeddings."""
    decayed = [p for name, p in model.named_parameters() if is_decayed(name, p)]
    free = [p for name, p in model.named_parameters() if not is_decayed(name, p)]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return SOAP(groups, lr=config.learning_rate)


def is_decayed(name: str, p: Tensor) -> bool:
    """Whether a parameter is the matrix of a linear map."""
    return name.rsplit(".", 1)[-1] == "weight" and p.ndim >= 2


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
    """
    path = Path(config.output) / CHECKPOINT
    if path.exists() and not resume and not fresh:
        raise FileExistsError(f"{path} exists; say --resume to go on with this run or --fresh to start anew.")
    trainer = Trainer(config, progress_bar=progress_bar)
    if path.exists() and resume and not fresh:
        trainer.resume()
    trainer.fit()
    return trainer
