"""Data and model of a training run, made from its config."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import torch
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from torch import Tensor

from ase_andersonn.backends import own_torch_state, resolve_device, resolve_dtype
from ase_andersonn.checkpoints.checkpoint import load_model
from ase_andersonn.checkpoints.registry import architecture
from ase_andersonn.config import from_dict
from ase_andersonn.potentials.base import MIN_DISTANCE_SHARE, EnergyModel
from ase_andersonn.potentials.extrapolation import measure_environments, measure_max_density
from ase_andersonn.potentials.moments import POOLED_ATOMS
from ase_andersonn.pretrained.catalog import CHECKPOINT
from ase_andersonn.properties import LABELS

from .checks.frames import check_frames, check_shared
from .checks.outliers import check_overlaps
from .config import TrainConfig
from .data.dataset import FrameDataset, LabelledBatch, split
from .data.labels import check_names, missing_names, read_frames
from .element_rows import ElementRows, shared_distances
from .metrics import report
from .reference import elements_of, energies_by_element, force_scales, reference_energies, sample_with_energies
from .run_checkpoint import read_checkpoint

logger = logging.getLogger(__name__)

WITHOUT_ENERGIES = "those of the model are known but for a number of eV for each set of atoms, and cannot be compared."
FOR_FAMILIAR = 5_000
"""Atoms, about, on which a model's environments are measured whenever it is written."""
FOR_SHIFTS = 500
"""Frames of each element that its shift is fitted to; all would take as long as an epoch."""


@dataclass(frozen=True)
class TrainingSetup:
    """What a run trains, and on what.

    Attributes:
        model: on its device, with reference energies and scales set.
        train: training frames.
        validation: validation frames; may be empty.
        scales: force scale of each element, eV/Å, indexed by atomic number [119].
        device: of the model.
        dtype: of the model.
        learns_energies: whether the weights ask for energies and the frames have any.
        rows: per-element parameters in the form that is optimised; None for as they are.
    """

    model: EnergyModel
    train: FrameDataset
    validation: FrameDataset
    scales: Tensor
    device: torch.device
    dtype: torch.dtype
    learns_energies: bool = True
    rows: ElementRows | None = None

    @classmethod
    @own_torch_state()
    def from_config(cls, config: TrainConfig) -> "TrainingSetup":
        """Read the frames, split them, make or load the model."""
        if config.initial is None:
            _model_config(config, (1,))  # an error in it comes before the frames are read
        train, validation = frames_of(config)
        if config.initial is not None:
            return cls.from_trained(config, initial_model(config), train, validation)
        model = build_model(config, elements_of(train))
        return cls.from_frames(config, model, train, validation)

    @classmethod
    @own_torch_state()
    def from_frames(
        cls, config: TrainConfig, model: EnergyModel, train: Sequence[Atoms], validation: Sequence[Atoms]
    ) -> "TrainingSetup":
        """From frames and a model with random weights, whose references are set here."""
        found = cls._of(config, model, train, validation, draw_rows=True)
        scales = {z: found.scales[z].item() for z in model.elements}
        energies = reference_energies(train, config.reference_energies, config.labels)
        unknown = [chemical_symbols[z] for z in energies if z not in model.elements]
        if unknown:
            raise ValueError(
                f"reference_energies names {', '.join(unknown)}, which the model does not know; leave that out, or "
                "name it in `elements` of the model's config."
            )
        model.set_reference({z: energies.get(z, 0.0) for z in model.elements}, scales)
        known = {pair: MIN_DISTANCE_SHARE * r for pair, r in found.train.min_distance().items()}
        model.set_min_distance(shared_distances(model.elements, known) if config.share_elements else known)
        model.calibrate(lambda: _geometries(model, found.train, config.batch_atoms, found.device, found.dtype))
        found.measure_max_density()
        return found

    @classmethod
    @own_torch_state()
    def from_trained(
        cls, config: TrainConfig, model: EnergyModel, train: Sequence[Atoms], validation: Sequence[Atoms]
    ) -> "TrainingSetup":
        """From frames and a trained model, whose scales are kept and whose reference energies are moved to the frames.

        The shift of each element is the fit of `reference_energies` to labels less predictions, of a sample of many
        frames.
        """
        found = cls._of(config, model.train().requires_grad_(True), train, validation)
        model.lower_min_distance({pair: MIN_DISTANCE_SHARE * r for pair, r in found.train.min_distance().items()})
        found.measure_max_density(begun=True)
        shifts = _shifts(config, model, train)
        model.move_reference(shifts)
        moved = ", ".join(f"{chemical_symbols[z]} {shift:+.4g}" for z, shift in shifts.items())
        logger.info("begins with %s; reference energies moved by, eV: %s", config.initial, moved or "nothing")
        return found

    @classmethod
    @own_torch_state()
    def from_checkpoint(cls, config: TrainConfig) -> "TrainingSetup":
        """With a model of the sizes that the run's checkpoint holds, whose weights and scales come from there alone.

        Raises:
            FileNotFoundError: without a checkpoint.
        """
        train, validation = frames_of(config)
        sizes = read_checkpoint(Path(config.output) / CHECKPOINT)[1].get("sizes", {})
        found = cls._of(config, build_model(config, elements_of(train), sizes), train, validation)
        found.measure_max_density()  # earlier checkpoints do not hold it; others overwrite it with theirs
        return found

    @classmethod
    def _of(
        cls,
        config: TrainConfig,
        model: EnergyModel,
        train: Sequence[Atoms],
        validation: Sequence[Atoms],
        draw_rows: bool = False,
    ) -> "TrainingSetup":
        """With the model on its device, else as it is but for its elements' rows where these are to be drawn anew."""
        device, dtype = resolve_device(config.device), resolve_dtype(config.dtype)
        _check_elements(config, train, validation, model.elements)
        scales = torch.ones(len(chemical_symbols), dtype=dtype)
        pooled = POOLED_ATOMS if config.share_elements else 0.0
        for z, scale in force_scales(train, config.labels, pooled).items():
            scales[z] = scale
        model.to(device=device, dtype=dtype)
        known, held_out = (FrameDataset(frames, model.edge_cutoff, config.labels) for frames in (train, validation))
        learnt = _check_weights(config, known)
        _log(check_overlaps(known))
        rows = ElementRows(model, model.elements, config.seed if draw_rows else None) if config.share_elements else None
        return cls(model, known, held_out, scales.to(device), device, dtype, "energy" in learnt, rows)

    def batch(self, dataset: FrameDataset, indices: Sequence[int]) -> LabelledBatch:
        """Frames of a data set as a batch on the model's device."""
        return dataset.batch(indices, device=self.device, dtype=self.dtype)

    def measure_max_density(self, *, begun: bool = False) -> None:
        """Set the model's highest local densities by all training frames."""
        batches = self.train.sampler(batch_atoms=2000, seed=0).ordered()
        measure_max_density(self.model, (self.batch(self.train, indices).graph for indices in batches), begun=begun)

    def measure_environments(self, model: EnergyModel) -> None:
        """Measure what of a sample of the training frames is familiar to the model as it stands."""
        every = max(1, sum(self.train.n_atoms) // FOR_FAMILIAR)
        indices = range(0, len(self.train), every)
        measure_environments(model, (self.batch(self.train, [index]).graph for index in indices))

    def summary(self) -> str:
        """The data in one line for the log."""
        counts = ", ".join(
            f"{sum(bool(data[label.name].isfinite().all()) for data in self.train.data)} with {label.name}"
            for label in LABELS
        )
        scales = ", ".join(f"{chemical_symbols[z]} {self.scales[z].item():.3g}" for z in self.model.elements)
        return (
            f"{len(self.train)} training frames ({counts}), {len(self.validation)} validation frames, "
            f"{sum(p.numel() for p in self.model.parameters())} parameters; force scales in eV/Å: {scales}"
        )

    def fingerprint(self) -> dict[str, str]:
        """Hashes of the data."""
        return {"train": self.train.fingerprint(), "validation": self.validation.fingerprint()}


def frames_of(config: TrainConfig) -> tuple[list[Atoms], list[Atoms]]:
    """Training and validation frames."""
    logger.info("reading the frames and finding their neighbours")
    frames = read_frames(config.train, config.labels)
    check_names(frames, config.labels)
    _log(check_frames(frames, config.labels))
    if config.validation:
        train, validation = frames, read_frames(config.validation, config.labels)
        _log(missing_names(validation, config.labels))
        _log(check_frames(validation, config.labels, "validation "))
    else:
        known, held_out = split(frames, config.validation_fraction, config.seed)
        train, validation = [frames[i] for i in known], [frames[i] for i in held_out]
    _log(check_shared(train, validation))
    return train, validation


def _log(warnings: Iterable[str]) -> None:
    for text in warnings:
        logger.warning("%s", text)


def build_model(config: TrainConfig, elements: Sequence[int], sizes: Mapping[str, Any] | None = None) -> EnergyModel:
    """The model of the config, or of other sizes where these are given, its weights drawn from the config's seed.

    Raises:
        ValueError: for an unknown architecture or a key its config does not have.
    """
    cls, model_config = _model_config(config, elements, sizes)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)  # torch.manual_seed sets the user's on GPUs as well
        model: EnergyModel = cls(model_config)
    return model


def _model_config(
    config: TrainConfig, elements: Sequence[int], sizes: Mapping[str, Any] | None = None
) -> tuple[Any, Any]:
    """Class and config of the model."""
    cls: Any = architecture(EnergyModel, config.architecture)
    config_class = get_type_hints(cls.__init__)["config"]
    where = "sizes of the checkpoint" if sizes else "model"
    given = {"elements": tuple(elements), **(sizes or config.model)}
    return cls, from_dict(config_class, {**given, "elements": _numbers(given["elements"])}, where)


def _numbers(elements: Any) -> Any:
    """Symbols as atomic numbers; what is no list of symbols stays as it is, for the config to judge."""
    if not isinstance(elements, (list, tuple)) or not all(symbol in atomic_numbers for symbol in elements):
        return elements
    return tuple(sorted(atomic_numbers[symbol] for symbol in elements))


def initial_model(config: TrainConfig) -> EnergyModel:
    """The model that the run begins with.

    Raises:
        FileNotFoundError: if there is none of that name.
        ValueError: if it is not of the config's architecture, or does not learn from energies and forces of atoms.
    """
    model = load_model(config.initial)
    kind = type(model).__name__
    if not isinstance(model, EnergyModel):
        raise ValueError(f"initial, {config.initial}, is a {kind}; a run begins with one model of energies and forces.")
    if kind != config.architecture:
        raise ValueError(
            f"initial, {config.initial}, is a {kind} and architecture is {config.architecture}; "
            f"set architecture: {kind}."
        )
    return model


def _shifts(config: TrainConfig, model: EnergyModel, train: Sequence[Atoms]) -> dict[int, float]:
    """How much the labels of the training frames lie above the predictions, eV by atomic number."""
    frames = sample_with_energies(train, FOR_SHIFTS, config.labels)
    if not frames:
        return {}
    found = report(
        model,
        FrameDataset(frames, model.edge_cutoff, config.labels),
        batch_atoms=config.batch_atoms,
        tolerance=config.tolerance,
        compile_mode=False,
        solver=config.solver,
    )
    residuals = (found.labelled.energy - found.predicted.energy).tolist()
    return energies_by_element(elements_of(train), [atoms.numbers for atoms in frames], residuals)


def _geometries(
    model: EnergyModel, data: FrameDataset, batch_atoms: int, device: torch.device, dtype: torch.dtype
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Arguments of the model's `encode` for all frames."""
    for indices in data.sampler(batch_atoms=batch_atoms, seed=0).ordered():
        graph = data.batch(indices, device=device, dtype=dtype).graph
        species = model.species(graph.numbers)
        yield graph.vectors, species, graph.neighbors, graph.mask


def _check_weights(config: TrainConfig, train: FrameDataset) -> set[str]:
    """What is asked for and there is."""
    asked = [name for name, wanted in config.learnt.items() if wanted]
    has = [name for name in config.learnt if any(bool(data[name].isfinite().any()) for data in train.data)]
    if not set(asked) & set(has):
        raise ValueError(
            f"nothing to learn: the weights ask for {' or '.join(asked)}, and the training frames have "
            f"{', '.join(has) or 'no labels'}."
        )
    if "energy" not in set(asked) & set(has):
        logger.warning("no energies are learnt: %s", WITHOUT_ENERGIES)
    return set(asked) & set(has)


def _check_elements(
    config: TrainConfig, train: Sequence[Atoms], validation: Sequence[Atoms], known: Sequence[int]
) -> None:
    remedy = "add frames with it to the training set, or the element to `elements` of the model's config."
    if config.initial is not None:
        remedy = f"{config.initial} knows {', '.join(chemical_symbols[z] for z in known)}; begin with another model."
    for kind, frames in (("training", train), ("validation", validation)):
        strange = sorted(set(elements_of(frames)) - set(known)) if len(frames) else []
        if strange:
            names = ", ".join(chemical_symbols[z] for z in strange)
            raise ValueError(f"the {kind} frames contain {names}, which the model does not know; {remedy}")
