"""Structures as the model's samples, made once; the division into training and validation; batches and blocks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ase_andersonn.batching import pack
from ase_andersonn.classifiers.base import ClassifierModel
from ase_andersonn.training.data.fingerprint import fingerprint

from .table import Entry


@dataclass(frozen=True)
class LabelledSamples:
    """What a model needs of labelled structures.

    Attributes:
        samples: of the model.
        sizes: rows and width of each.
        targets: int64 [n].
        values: the labelled quantity [n]; nan where unknown.
        digest: hash of structures and labels.
    """

    samples: list[Any]
    sizes: list[tuple[int, int]]
    targets: Tensor
    values: Tensor
    digest: str

    def __len__(self) -> int:
        return len(self.samples)

    @classmethod
    def of(
        cls, model: ClassifierModel, entries: Sequence[Entry], *, progress_bar: bool | None = None
    ) -> "LabelledSamples":
        """The samples of all entries.

        Raises:
            ValueError: for a structure that the model cannot take; the text says which.
        """
        samples = []
        for entry in tqdm(entries, "structures", disable=None if progress_bar is None else not progress_bar):
            try:
                samples.append(model.sample(entry.atoms))
            except ValueError as error:
                raise ValueError(f"{entry.where}, {entry.atoms.get_chemical_formula()}: {error}") from error
        return cls(
            samples,
            [model.size(sample) for sample in samples],
            torch.tensor([entry.target for entry in entries], dtype=torch.int64),
            torch.tensor([entry.value for entry in entries], dtype=torch.float32),
            fingerprint(_arrays(entry) for entry in entries),
        )

    def blocks(self, indices: Sequence[int], most_rows: int) -> list[list[int]]:
        """The indices in groups of similar width with at most so many rows each; a larger sample is alone."""
        return pack([rows for rows, _ in self.sizes], most_rows, sorted(indices, key=lambda i: (self.sizes[i][1], i)))


def _arrays(entry: Entry) -> list[Any]:
    atoms = entry.atoms
    return [atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, entry.target, entry.value]


@dataclass(frozen=True)
class ShuffledBatches:
    """Every sample once an epoch, in batches of `size`; what is left over waits for the next epoch.

    Args:
        n: samples.
        size: of a batch.
        seed: of the shuffle.
    """

    n: int
    size: int
    seed: int

    def epoch(self, epoch: int) -> list[list[int]]:
        """The batches of an epoch, which depend on seed and epoch alone."""
        order = np.random.default_rng([self.seed, epoch]).permutation(self.n).tolist()
        whole = max(self.n // self.size, 1)
        return [order[k * self.size : (k + 1) * self.size] for k in range(whole)]


def split(
    entries: Sequence[Entry], fraction: float, by: Literal["formula", "system", "none"], seed: int
) -> tuple[list[Entry], list[Entry]]:
    """Training and validation entries; what is alike in formula or chemical system stays on one side."""
    keys = [_key(entry, by) or str(index) for index, entry in enumerate(entries)]
    kinds = sorted(set(keys))
    order = np.random.default_rng(seed).permutation(len(kinds))
    counts = dict.fromkeys(kinds, 0)
    for key in keys:
        counts[key] += 1
    held_out: set[str] = set()
    n = 0
    for k in order:
        if n >= round(fraction * len(entries)):
            break
        held_out.add(kinds[k])
        n += counts[kinds[k]]
    train = [entry for entry, key in zip(entries, keys, strict=True) if key not in held_out]
    return train, [entry for entry, key in zip(entries, keys, strict=True) if key in held_out]


def _key(entry: Entry, by: str) -> str:
    if by == "formula":
        return str(entry.atoms.get_chemical_formula(empirical=True))
    return "-".join(sorted(entry.atoms.symbols.species())) if by == "system" else ""
