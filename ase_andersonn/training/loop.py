"""A training run: the loop over `optimizer.py`, averaged weights, validation, checkpoints that resume exactly.

Subclasses of `TrainingLoop` define the model, the data and the loss.
"""

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ase_andersonn.backends import own_torch_state
from ase_andersonn.checkpoints.migrations import migrate_run_config
from ase_andersonn.config import from_dict, to_dict, write_config
from ase_andersonn.potentials.interface import ConvergenceError
from ase_andersonn.pretrained.catalog import CHECKPOINT, FORMATS
from ase_andersonn.stop_signal import StopSignal

from .config import RunConfig
from .element_rows import ElementRows
from .ema import WeightAverage
from .optimizer import make_optimizer
from .progress import CONFIG, METRICS, Progress, folder_lock
from .report import MetricsLog
from .run_checkpoint import (
    load_state_tensors,
    own_random_numbers,
    random_states,
    read_checkpoint,
    state_tensors,
    write_checkpoint,
)
from .schedule import learning_rate

logger = logging.getLogger(__name__)

MAX_SKIPPED_IN_A_ROW = 50


class Batches(Protocol):
    """Which samples are drawn together."""

    def epoch(self, epoch: int) -> list[list[int]]:
        """The batches of an epoch, which depend on nothing but its number."""


class TrainingLoop(ABC):
    """One training run in `config.output`.

    Args:
        config: the run.
        model: what is trained.
        batches: which samples are drawn together.
        rows: the model's per-element parameters in the form that is optimised; None for as they are.
        progress_bar: whether to show one; where not given, only on a terminal.

    Attributes:
        lock: of the run's folder, held by `fit`.
    """

    def __init__(
        self,
        config: RunConfig,
        model: nn.Module,
        batches: Batches,
        *,
        rows: ElementRows | None = None,
        progress_bar: bool | None = None,
    ) -> None:
        self.config = config
        self.folder = Path(config.output)
        self.model = model
        self.sampler = batches
        self.rows = rows
        self.learnt = dict((model if rows is None else rows).named_parameters())
        self.optimizer = make_optimizer(self.learnt, config.learning_rate, config.weight_decay)
        self.average = WeightAverage(model, config.ema_decay)
        self.position = Progress()
        self.random_states: dict[str, Tensor] = {}
        self.lock = folder_lock(self.folder)
        self.log = MetricsLog(self.folder / METRICS)
        self.progress_bar = progress_bar
        self._batches = batches.epoch(0)
        self._tick = self._saved = time.monotonic()

    # What a run is of

    @abstractmethod
    def backward(self, indices: list[int]) -> dict[str, Tensor]:
        """Add the gradients of the loss of these samples to the weights; the loss, under that name, and its terms."""

    @abstractmethod
    def validate(self) -> dict[str, Any] | None:
        """Errors on the validation samples, with the averaged weights; None without such samples.

        Calls `record_best` with the loss and saves the model where it is.
        """

    def begin(self) -> dict[str, Any] | None:
        """As `validate`, before the first step, of a run that does not begin at random; else None."""
        return None

    @abstractmethod
    def finish(self) -> None:
        """Save the last model and draw the pictures."""

    @abstractmethod
    def fingerprint(self) -> Any:
        """Hashes of the data."""

    @abstractmethod
    def summary(self) -> str:
        """The data in one line for the log."""

    @abstractmethod
    def epoch_text(self, record: Mapping[str, Any]) -> str:
        """A record of the metrics in one line."""

    # Progress

    @property
    def progress(self) -> float:
        """Share of the run that is done, 0 to 1."""
        p, n_epochs = self.position, self.config.n_epochs
        if n_epochs is None:
            minutes: float = self.config.max_minutes or 0.0
            return min(p.seconds / (60.0 * minutes), 1.0)
        return min((p.epoch + p.batch / len(self._batches)) / float(n_epochs), 1.0)

    @property
    def finished(self) -> bool:
        """Whether the run has used its epochs or its minutes."""
        return self.progress >= 1.0

    # The run

    @own_torch_state()
    def fit(self) -> Progress:
        """Train until the budget is used or an interrupt (Ctrl-C, SIGTERM) asks to stop; both leave a checkpoint.

        Raises:
            InUseError: if another process trains in the folder; the text names it.
        """
        with self.lock:
            return self._fit()

    def _fit(self) -> Progress:
        write_config(self.config, self.folder / CONFIG)
        self.log.truncate(self.position.metrics_size)
        logger.info("%s", self.summary())
        disable = None if self.progress_bar is None else not self.progress_bar
        bar = tqdm(total=100.0, disable=disable, bar_format="{desc} {percentage:5.1f}%|{bar}| {elapsed} {postfix}")
        device = next(self.model.parameters()).device
        with own_random_numbers(device, self.config.seed, self.random_states), StopSignal() as stop, bar:
            self._tick = self._saved = time.monotonic()
            self._before_first_step()
            while not self.finished and stop.name is None:
                self._epoch(stop, bar)
            self.save_checkpoint()
        self.finish()
        return self.position

    def _before_first_step(self) -> None:
        p = self.position
        validation = self.begin() if p.step == 0 and p.metrics_size == 0 else None
        if validation is not None:
            self._tick = time.monotonic()  # the schedule begins with the first step
            self._write({"epoch": 0, "step": 0, "train": {}, "validation": validation})
            self.save_checkpoint()

    def _epoch(self, stop: StopSignal, bar: "tqdm[Any]") -> None:
        p = self.position
        while p.batch < len(self._batches) and not self._out_of_time() and stop.name is None:
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
        """One step of the optimiser on the samples of these indices."""
        p, config = self.position, self.config
        rate = learning_rate(
            self.progress, peak=config.learning_rate, final=config.learning_rate_final, warmup=config.warmup
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.zero_grad(set_to_none=True)
        with self._divergence_named():
            terms = self.backward(indices)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
        if bool(torch.isfinite(norm)) and bool(torch.isfinite(terms["loss"])):
            self._move()
            self.average.update(self.model)
            p.skipped_in_a_row = 0
            self._count(terms)
        else:
            self._skip(indices, terms["loss"])
        p.batch += 1
        p.step += 1
        self._advance_clock()

    def _move(self) -> None:
        """One step of the optimiser on the gradients at hand."""
        if self.rows is not None:
            self.rows.pass_gradients()
        self.optimizer.step()
        if self.rows is not None:
            self.rows.write()

    @contextmanager
    def _divergence_named(self) -> Iterator[None]:
        try:
            yield
        except ConvergenceError as error:
            raise ConvergenceError(
                f"step {self.position.step}: {error} If the loss rose before this, the run diverged: lower "
                "learning_rate."
            ) from error

    def _skip(self, indices: list[int], loss: Tensor) -> None:
        p = self.position
        p.skipped += 1
        p.skipped_in_a_row += 1
        logger.warning("step %d skipped: gradient not finite (loss %g, samples %s)", p.step, loss.item(), indices)
        if p.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise RuntimeError(
                f"{p.skipped_in_a_row} steps in a row had a gradient that is not finite, "
                f"the last on training samples {indices}. Look at these, or lower learning_rate."
            )

    def _count(self, terms: Mapping[str, Tensor]) -> None:
        p = self.position
        for name, value in terms.items():
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
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "skipped_steps": p.skipped,
            "train": {name: total / max(p.counted, 1) for name, total in p.sums.items()},
        }
        p.sums, p.counted = {}, 0
        if p.epoch % self.config.validate_every == 0 or progress >= 1.0:
            with self.average.applied(self.model), self._divergence_named():
                validation = self.validate()
            if validation is not None:
                record["validation"] = validation
        self._write(record)

    def _write(self, record: dict[str, Any]) -> None:
        self._advance_clock()
        record["minutes"] = self.position.seconds / 60.0
        self.position.metrics_size = self.log.write(record)
        self.position.metrics_sha256 = self.log.sha256(self.position.metrics_size)
        logger.info("%s", self.epoch_text(record))

    def record_best(self, loss: float) -> bool:
        """Whether a validation loss is the lowest so far, which it then counts as."""
        p = self.position
        if not math.isfinite(loss) or (p.best is not None and loss >= p.best):
            return False
        p.best, p.best_epoch = loss, p.epoch
        return True

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
        sizes: Any = self.model.config
        state = {
            "format": FORMATS[-1],
            "position": asdict(self.position),
            "average_updates": self.average.updates,
            "config": to_dict(self.config),
            "data": self.fingerprint(),
            "sizes": to_dict(sizes),
        }
        write_checkpoint(
            self.folder / CHECKPOINT, state_tensors(self.model, self.learnt, self.optimizer, self.average), state
        )
        self._saved = time.monotonic()

    @own_torch_state()
    def resume(self) -> None:
        """Go back to where the checkpoint of this run was written.

        Raises:
            FileNotFoundError: without a checkpoint.
            ValueError: if config or data are others than those of the checkpoint, or a file is damaged.
        """
        path = self.folder / CHECKPOINT
        tensors, state = read_checkpoint(path)
        self._check_same_run(path, state)
        load_state_tensors(tensors, self.model, self.learnt, self.optimizer, self.average)
        self.random_states = random_states(tensors)
        self.average.updates = state["average_updates"]
        self.position = from_dict(Progress, state["position"])
        self.log.check(self.position.metrics_size, self.position.metrics_sha256)
        self._batches = self.sampler.epoch(self.position.epoch)

    def _check_same_run(self, path: Path, state: dict[str, Any]) -> None:
        then, now = self.config.defaults() | state["config"], migrate_run_config(to_dict(self.config))
        changed = [k for k in now if k not in self.config.MAY_CHANGE_ON_RESUME and now[k] != then.get(k)]
        if changed:
            news = "; ".join(f"{k}: {then.get(k)!r} then, {now[k]!r} now" for k in changed)
            raise ValueError(f"{path} belongs to a run with another config ({news}). Undo the change or start fresh.")
        if state["data"] != self.fingerprint():
            raise ValueError(f"{path} belongs to a run on other data: the samples have changed. Start fresh.")
