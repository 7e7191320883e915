"""Labels of structures: metal, semiconductor or insulator; weakly or strongly polar; small or large pores."""

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from ase import Atoms
from torch import Tensor
from tqdm import tqdm

from .backends import CompileMode, exact_matmul, own_torch_state, resolve_device, resolve_dtype
from .batching import pack
from .checkpoints.checkpoint import load_classifier
from .classifiers.base import ClassifierModel
from .deprecated import warn_renamed
from .labels import LabelSet, label_set
from .potentials.interface import ConvergenceError, warn_caller
from .pretrained.catalog import CLASSIFIERS, model_files
from .structures.metadata import check_metadata
from .structures.reading import structure_from

UNCERTAIN = "uncertain"
BLOCK_ATOMS = 2000
"""Atoms evaluated at once with `batch_size="auto"`."""
READ_AHEAD = 512
"""Structures that are prepared before they are evaluated in blocks of similar size."""

ModelSource = str | Path | ClassifierModel


@dataclass(frozen=True)
class Prediction:
    """The answer for one structure.

    Attributes:
        name: the most probable label, or "uncertain" where its probability is below the chosen confidence.
        probabilities: of every label.
        best: the most probable label.
        confidence: its probability.
        novelty: how unlike the training structures it is; one in a hundred of the kind seen in training is above 1.
        spread: largest standard deviation of a probability among the members of an ensemble; 0 for one model.
    """

    name: str
    probabilities: dict[str, float]
    best: str
    confidence: float
    novelty: float
    spread: float = 0.0

    @property
    def unusual(self) -> bool:
        """Whether the structure is unlike the training structures, so that the probabilities are a guess."""
        return self.novelty > 1.0


class StructureClassifier:
    """Labels of structures with an equilibrium classifier, or with the mean of several.

    Args:
        model: a packaged classifier's name, the path of a model file or of a folder of them (an ensemble), a model, a
            sequence of these, or None for the packaged classifier of `labels`.
        device: `"auto"` (CUDA where there is one), `"cpu"`, `"cuda"`, `"cuda:0"`.
        labels: name of a label set, or the set; that of the model where not given. It chooses the packaged classifier,
            and is held against the model's.
        confidence: below this probability of the best label the answer is "uncertain".
        dtype: `"float32"` or `"float64"`.
        compile: `True`, `False` or `"auto"`; pays for thousands of structures.

    Raises:
        FileNotFoundError: if there is no such model.
        ValueError: for a damaged file, members that do not share one label set, labels that the model does not have,
            or a confidence outside 0 to 1.
    """

    @own_torch_state()
    def __init__(
        self,
        model: ModelSource | Sequence[ModelSource] | None = None,
        *,
        device: str = "auto",
        labels: str | LabelSet | None = None,
        confidence: float = 0.0,
        dtype: str = "float32",
        compile: CompileMode = False,
    ) -> None:
        if not 0.0 <= confidence <= 1.0:
            raise ValueError(f"confidence is {confidence}; it is a probability, from 0 to 1.")
        wanted = label_set(labels) if isinstance(labels, str) else labels
        self.confidence = confidence
        self.models = [_placed(member, device, dtype) for member in _members(model, wanted)]
        self.labels = _shared_labels(self.models, wanted)
        self._warned: set[str] = set()
        for member in self.models:
            member.accelerate(compile)

    def predict(self, structure: Any) -> Prediction:
        """The label of one structure.

        Args:
            structure: `Atoms`, pymatgen Structure or Molecule, a path (CIF, POSCAR, XYZ, SDF, ...), or a SMILES where
                RDKit is installed.

        Raises:
            ValueError: for a structure without a meaning: empty, not finite, disordered, of unknown elements.
            FileNotFoundError, TypeError: for what is no structure.
        """
        if isinstance(structure, list | tuple):
            raise TypeError(f"predict takes one structure and was given {len(structure)}; predict_many takes several.")
        (answer,) = self.predict_many([structure], progress_bar=False)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @own_torch_state()
    def predict_many(
        self,
        structures: Iterable[Any],
        *,
        batch_size: int | Literal["auto"] = "auto",
        progress_bar: bool | None = None,
    ) -> list[Prediction | Exception]:
        """The label of each structure, or the error that it has instead; one bad structure stops nothing.

        Args:
            structures: as in `predict`; may be a generator, of which a few hundred are held at once.
            batch_size: structures evaluated at once; `"auto"` goes by their number of atoms.
            progress_bar: whether to show one; where not given, only on a terminal.

        Raises:
            ValueError: for a batch size below 1.
        """
        if batch_size != "auto" and batch_size < 1:
            raise ValueError(f'batch_size is {batch_size}; it has to be at least 1, or "auto".')
        answers: dict[int, Prediction | Exception] = {}
        waiting: dict[int, list[Any]] = {}
        total = len(structures) if isinstance(structures, Sequence) else None
        with tqdm(total=total, unit="structure", disable=None if progress_bar is None else not progress_bar) as bar:
            for index, structure in enumerate(structures):
                try:
                    waiting[index] = self._samples(structure_from(structure))
                except Exception as error:  # whatever is wrong with one structure
                    answers[index] = error if isinstance(error, ValueError | TypeError | OSError) else _named(error)
                    bar.update()
                if len(waiting) >= READ_AHEAD:
                    answers |= self._answers(waiting, batch_size, bar)
                    waiting = {}
            answers |= self._answers(waiting, batch_size, bar)
        return [answers[index] for index in range(len(answers))]

    def _samples(self, atoms: Atoms) -> list[Any]:
        """The structure as each member wants it; members of one config share what they want.

        Warns once of charges and spins, which no member reads.
        """
        for text in check_metadata(atoms).ignored():
            if text not in self._warned:
                self._warned.add(text)
                warn_caller(text)
        samples: list[Any] = []
        for k, member in enumerate(self.models):
            alike = next((j for j in range(k) if self.models[j].config == member.config), None)
            samples.append(member.sample(atoms) if alike is None else samples[alike])
        return samples

    def _answers(
        self, waiting: dict[int, list[Any]], batch_size: int | Literal["auto"], bar: "tqdm[Any]"
    ) -> dict[int, Prediction | Exception]:
        """Labels of prepared structures, by their indices."""
        found: dict[int, Prediction | Exception] = {}
        for block in self._blocks(waiting, batch_size):
            found |= self._block_answers(block, waiting)
            bar.update(len(block))
        return found

    def _block_answers(self, block: list[int], waiting: dict[int, list[Any]]) -> dict[int, Prediction | Exception]:
        """Where a block fails as a whole, as for want of memory, its structures are tried one by one."""
        try:
            return dict(zip(block, self._evaluate([waiting[index] for index in block]), strict=True))
        except (RuntimeError, MemoryError) as error:
            if len(block) == 1:
                return {block[0]: error}
        found: dict[int, Prediction | Exception] = {}
        for index in block:
            found |= self._block_answers([index], waiting)
        return found

    def _blocks(self, waiting: dict[int, list[Any]], batch_size: int | Literal["auto"]) -> list[list[int]]:
        """Indices in blocks of similar width."""
        keys, sizes = list(waiting), [self.models[0].size(samples[0]) for samples in waiting.values()]
        order = sorted(range(len(keys)), key=lambda k: (sizes[k][1], keys[k]))
        n_atoms = [rows for rows, _ in sizes]
        if batch_size == "auto":
            blocks = pack(n_atoms, BLOCK_ATOMS, order)
        else:
            blocks = pack(n_atoms, math.inf, order, max_items=batch_size)
        return [[keys[k] for k in block] for block in blocks]

    @torch.inference_mode()
    def _evaluate(self, samples: Sequence[list[Any]]) -> list[Prediction | Exception]:
        with exact_matmul():
            members = [_member_answer(m, [s[k] for s in samples]) for k, m in enumerate(self.models)]
        probabilities = torch.stack([p for p, _, _ in members])
        mean = probabilities.mean(0)
        spread = probabilities.std(0, correction=0).amax(1)
        novelty = torch.stack([n for _, n, _ in members]).mean(0)
        reached = torch.stack([c for _, _, c in members]).all(0)
        rows = zip(mean, novelty.tolist(), spread.tolist(), reached.tolist(), strict=True)
        return [self._label(*row) for row in rows]

    def _label(self, probabilities: Tensor, novelty: float, spread: float, reached: bool) -> Prediction | Exception:
        if not reached:
            return ConvergenceError(
                "the equilibrium of the features was not reached; the model's config may ask for a tolerance that its "
                "precision does not allow, or for too few steps."
            )
        if not bool(probabilities.isfinite().all()):
            return ValueError("the probabilities are not finite; the structure is beyond what the model can take.")
        values = probabilities.tolist()
        k = max(range(len(values)), key=values.__getitem__)
        best = self.labels.labels[k]
        name = best if values[k] >= self.confidence else UNCERTAIN
        return Prediction(name, dict(zip(self.labels.labels, values, strict=True)), best, values[k], novelty, spread)


def _member_answer(model: ClassifierModel, samples: Sequence[Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Calibrated probabilities [n, n_classes] and novelty [n], in float64, and convergence [n], on the CPU."""
    features = model.embed(model.collate(samples))
    probabilities = (model.head(features).double() / model.temperature.double()).softmax(-1)
    found = model.statistics
    converged = torch.ones(len(features), dtype=torch.bool) if found is None else found.converged.cpu()
    return probabilities.cpu(), model.novelty(features).double().cpu(), converged


def _named(error: Exception) -> ValueError:
    """An error that was not expected of a structure, with its kind, without which its text says little."""
    wrapped = ValueError(f"the structure cannot be used: {type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped


def _members(model: ModelSource | Sequence[ModelSource] | None, labels: LabelSet | None) -> list[ClassifierModel]:
    if model is None:
        model = "electronic" if labels is None else labels.name
    if isinstance(model, ClassifierModel):
        return [model]
    if isinstance(model, str | Path):
        return [load_classifier(file) for file in model_files(model, CLASSIFIERS)]
    if not len(model):
        raise ValueError("an ensemble needs at least one model; none was given.")
    return [member for source in model for member in _members(source, labels)]


def _shared_labels(models: Sequence[ClassifierModel], wanted: LabelSet | None) -> LabelSet:
    labels = models[0].labels
    different = [m.labels for m in models if m.labels != labels]
    if different:
        raise ValueError(f"the members of an ensemble need one label set; these have {labels} and {different[0]}.")
    if wanted is not None and wanted != labels:
        raise ValueError(f"the model gives {labels}, not {wanted}; choose another model or leave `labels` out.")
    return labels


def _placed(model: ClassifierModel, device: str, dtype: str) -> ClassifierModel:
    """A copy, so that the caller's stays as it is."""
    return copy.deepcopy(model).to(resolve_device(device), resolve_dtype(dtype)).eval().requires_grad_(False)


__all__ = ["UNCERTAIN", "Prediction", "StructureClassifier"]


def __getattr__(name: str) -> Any:
    if name == "Label":
        warn_renamed("Label", "Prediction")
        return Prediction
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
