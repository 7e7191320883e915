"""Classification of structures: metal, semiconductor or insulator; weakly or strongly polar; small or large pores."""

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
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
"""Number of atoms evaluated at once with `batch_size="auto"`."""
READ_AHEAD = 512
"""Number of structures that are preprocessed before their evaluation in batches of similar size."""
FAR = 1.5
"""Out-of-distribution score above which a structure is warned of: 1 in 2,000 crystals of the test data of `electronic`,
and 1 in 971 molecules of that of `polarity`. Crystals have 1.6 to 2.7 from the latter."""
PERIODIC = {"electronic": [3], "polarity": [0], "pore-size": [3], "pore-size-3": [3]}
"""In how many directions the training structures of the packaged classifiers are periodic; the cards of others say it
as `periodic_directions`."""
KINDS = ("not periodic", "periodic in one direction", "periodic in two directions", "periodic in three directions")

ModelSource = str | Path | ClassifierModel


@dataclass(frozen=True)
class Prediction:
    """Predicted label of one structure.

    Attributes:
        name: the most probable label, or "uncertain" if its probability is below the required confidence.
        probabilities: calibrated probability of every label.
        best: the most probable label.
        confidence: its probability.
        out_of_distribution: distance to the training data; above 1 for one in a hundred validation structures.
        std: largest standard deviation of a probability over the members of an ensemble; 0 for one model.
        warning: in words why the answer is without a meaning or unreliable, where the structure is not of the kind that
            the classifier was trained on, or far from the training data; else None.
    """

    name: str
    probabilities: dict[str, float]
    best: str
    confidence: float
    out_of_distribution: float
    std: float = 0.0
    warning: str | None = None

    @property
    def unusual(self) -> bool:
        """Whether the structure is out of distribution, so that the probabilities are unreliable."""
        return self.out_of_distribution > 1.0 or self.warning is not None

    @property
    def novelty(self) -> float:
        """Former name of `out_of_distribution`."""
        warn_renamed("Prediction.novelty", "out_of_distribution")
        return self.out_of_distribution

    @property
    def spread(self) -> float:
        """Former name of `std`."""
        warn_renamed("Prediction.spread", "std")
        return self.std


class StructureClassifier:
    """Classifier of structures with a deep equilibrium model, or with an ensemble of models.

    Args:
        model: a packaged classifier's name, the path of a model file or of a folder of them (an ensemble), a model, a
            sequence of these, or None for the packaged classifier of `labels`.
        device: `"auto"` (CUDA where there is one), `"cpu"`, `"cuda"`, `"cuda:0"`.
        labels: a label set or its name; by default that of the model. It selects the packaged classifier, and has to
            agree with that of a given model.
        confidence: least probability of the best label, below which the label is "uncertain".
        dtype: `"float32"` or `"float64"`.
        compile: `True`, `False` or `"auto"`; worthwhile for thousands of structures.

    Raises:
        FileNotFoundError: if there is no such model.
        ValueError: for a damaged file, members with different label sets, labels other than the model's, or a
            confidence outside 0 to 1.
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
            member.compile_functions(compile)

    def predict(self, structure: Any) -> Prediction:
        """Predict the label of one structure.

        Args:
            structure: `Atoms`, pymatgen Structure or Molecule, a path (CIF, POSCAR, XYZ, SDF, ...), or a SMILES where
                RDKit is installed.

        Raises:
            ValueError: for an invalid structure: empty, not finite, disordered, of unknown elements.
            FileNotFoundError, TypeError: if the argument is not a structure.
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
        """Predict the label of each structure; an invalid structure gives an error in its place.

        Args:
            structures: as in `predict`; may be a generator, of which a few hundred are kept in memory at a time.
            batch_size: number of structures evaluated at once; `"auto"` limits their number of atoms.
            progress_bar: whether to show one; by default only on a terminal.

        Raises:
            ValueError: for a batch size below 1.
        """
        if batch_size != "auto" and batch_size < 1:
            raise ValueError(f'batch_size is {batch_size}; it has to be at least 1, or "auto".')
        answers: dict[int, Prediction | Exception] = {}
        waiting: dict[int, list[Any]] = {}
        outside: dict[int, str] = {}
        total = len(structures) if isinstance(structures, Sequence) else None
        with tqdm(total=total, unit="structure", disable=None if progress_bar is None else not progress_bar) as bar:
            for index, structure in enumerate(structures):
                try:
                    atoms = structure_from(structure)
                    waiting[index] = self._samples(atoms)
                    if text := outside_domain(self.models[0], atoms):
                        outside[index] = text
                except Exception as error:  # any error of one structure
                    answers[index] = error if isinstance(error, ValueError | TypeError | OSError) else _named(error)
                    bar.update()
                if len(waiting) >= READ_AHEAD:
                    answers |= self._answers(waiting, batch_size, bar)
                    waiting = {}
            answers |= self._answers(waiting, batch_size, bar)
        for index, text in outside.items():
            if isinstance(answer := answers[index], Prediction):
                answers[index] = replace(answer, warning=text)
        found = [answers[index] for index in range(len(answers))]
        for answer in found:
            if isinstance(answer, Prediction) and answer.warning:
                self._warn_once(answer.warning)
        return found

    def _samples(self, atoms: Atoms) -> list[Any]:
        """Preprocessed structure for each member; members with equal configs share it.

        Warns once of charges and spins, which no member uses.
        """
        for text in check_metadata(atoms).ignored():
            self._warn_once(text)
        samples: list[Any] = []
        for k, member in enumerate(self.models):
            alike = next((j for j in range(k) if self.models[j].config == member.config), None)
            samples.append(member.sample(atoms) if alike is None else samples[alike])
        return samples

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            warn_caller(text)

    def _answers(
        self, waiting: dict[int, list[Any]], batch_size: int | Literal["auto"], bar: "tqdm[Any]"
    ) -> dict[int, Prediction | Exception]:
        """Predictions for preprocessed structures, by index."""
        found: dict[int, Prediction | Exception] = {}
        for block in self._blocks(waiting, batch_size):
            found |= self._block_answers(block, waiting)
            bar.update(len(block))
        return found

    def _block_answers(self, block: list[int], waiting: dict[int, list[Any]]) -> dict[int, Prediction | Exception]:
        """Predictions for a block; if it fails, for lack of memory, its structures are evaluated one by one."""
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
        """Indices grouped into blocks of similar width."""
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
        std = probabilities.std(0, correction=0).amax(1)
        score = torch.stack([n for _, n, _ in members]).mean(0)
        converged = torch.stack([c for _, _, c in members]).all(0)
        rows = zip(mean, score.tolist(), std.tolist(), converged.tolist(), strict=True)
        return [self._label(*row) for row in rows]

    def _label(self, probabilities: Tensor, score: float, std: float, converged: bool) -> Prediction | Exception:
        if not converged:
            return ConvergenceError(
                "the fixed-point solve of the features did not converge; the tolerance in the model's config may be "
                "too small for the precision, or max_steps too small."
            )
        if not bool(probabilities.isfinite().all()):
            return ValueError("the probabilities are not finite; the structure is outside the model's domain.")
        values = probabilities.tolist()
        k = max(range(len(values)), key=values.__getitem__)
        best = self.labels.labels[k]
        name = best if values[k] >= self.confidence else UNCERTAIN
        named = dict(zip(self.labels.labels, values, strict=True))
        warning = None
        if score > FAR:
            warning = (
                f"the out-of-distribution score is above {FAR:g}: the structure is unlike the training data of the "
                f"classifier of the {self.labels.quantity}, and its probabilities are unreliable."
            )
        return Prediction(name, named, best, values[k], score, std, warning)


def outside_domain(model: ClassifierModel, atoms: Atoms) -> str:
    """Why a structure is not of the kind that a classifier was trained on, in words; empty where it is."""
    periodic = model.card.get("periodic_directions", PERIODIC.get(str(model.card.get("name"))))
    n = int(atoms.pbc.sum())
    if periodic is None or n in periodic:
        return ""
    trained = " or ".join(KINDS[k] for k in periodic)
    return (
        f"the classifier of the {model.labels.quantity} was trained on structures that are {trained}, and this one is "
        f"{KINDS[n]}: the answer has no meaning."
    )


def _member_answer(model: ClassifierModel, samples: Sequence[Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Calibrated probabilities [n, n_classes], out-of-distribution scores [n] and convergence [n], on the CPU."""
    features = model.embed(model.collate(samples))
    probabilities = (model.head(features).double() / model.temperature.double()).softmax(-1)
    found = model.statistics
    converged = torch.ones(len(features), dtype=torch.bool) if found is None else found.converged.cpu()
    return probabilities.cpu(), model.out_of_distribution(features).double().cpu(), converged


def _named(error: Exception) -> ValueError:
    """Unexpected error for a structure, with its type in the message."""
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
    """Copy of a model on a device and in a precision; the original is not changed."""
    return copy.deepcopy(model).to(resolve_device(device), resolve_dtype(dtype)).eval().requires_grad_(False)


__all__ = ["UNCERTAIN", "Prediction", "StructureClassifier"]


def __getattr__(name: str) -> Any:
    if name == "Label":
        warn_renamed("Label", "Prediction")
        return Prediction
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
