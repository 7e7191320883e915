"""Frames as graphs with labels, their neighbours found once; the validation split; batches."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii

from ase_andersonn.structures.graph import Graph, bucket
from ase_andersonn.structures.neighbors import Cutoff
from ase_andersonn.structures.samples import Sample, collate, find_edges, make_sample

from .fingerprint import fingerprint
from .labels import LabelKeys, labels_of
from .sampler import BucketSampler
from .targets import Systems, Targets


@dataclass(frozen=True)
class LabelledBatch:
    """A batch as the model and the loss want it."""

    graph: Graph
    labels: Targets
    systems: Systems


class FrameDataset:
    """Labelled frames with their edges, kept in memory.

    Args:
        frames: structures with labels.
        cutoff: Å.
        keys: names of the labels.
    """

    def __init__(self, frames: Sequence[Atoms], cutoff: Cutoff, keys: LabelKeys | None = None) -> None:
        self.cutoff = cutoff
        self.data: list[Sample] = []
        for index, atoms in enumerate(frames):
            try:
                self.data.append(_labelled_sample(atoms, cutoff, keys))
            except ValueError as error:
                raise ValueError(f"frame {index}, {atoms.get_chemical_formula()}: {error}") from error
        self.n_atoms = [len(data.numbers) for data in self.data]
        self.buckets = [bucket(_max_neighbors(data)) for data in self.data]

    def __len__(self) -> int:
        return len(self.data)

    def min_distance(self) -> dict[tuple[int, int], float]:
        """Shortest distance between neighbours of each pair of elements (atomic numbers, ascending), Å."""
        n = len(chemical_symbols)
        shortest = torch.full((n * n,), torch.inf, dtype=torch.float64)
        for data in self.data:
            r = torch.linalg.vector_norm(data.vectors, dim=1)
            first, second = data.numbers[data.center], data.numbers[data.other]
            pair = n * torch.minimum(first, second) + torch.maximum(first, second)
            shortest.scatter_reduce_(0, pair, r, "amin")
        known = shortest.isfinite().nonzero().flatten().tolist()
        return {divmod(pair, n): shortest[pair].item() for pair in known}

    def sampler(self, *, batch_atoms: int, seed: int, balance: bool = False) -> BucketSampler:
        """Batches of at most `batch_atoms` atoms.

        Balanced, rarer sets of elements are drawn more often, so that all have about as many atoms in an epoch.
        """
        repeats = self._repeats() if balance else None
        return BucketSampler(self.n_atoms, self.buckets, batch_atoms=batch_atoms, seed=seed, repeats=repeats)

    def combinations(self) -> list[tuple[int, ...]]:
        """The sets of elements (atomic numbers, ascending) that stand together in a frame."""
        return sorted(set(self._kinds()))

    def periodic(self) -> list[bool]:
        """Whether there are frames that are periodic in no direction (False), and such that are in one or more."""
        return sorted({bool(data.pbc.any()) for data in self.data})

    def isolated_elements(self) -> list[int]:
        """The elements (atomic numbers) of which some atom has no neighbour."""
        numbers = [data.numbers[torch.bincount(data.center, minlength=len(data.numbers)) == 0] for data in self.data]
        return sorted(set(torch.cat(numbers).tolist())) if numbers else []

    def odd_electrons(self) -> bool:
        """Whether there are molecules with an odd number of electrons, if neutral; periodic frames are none."""
        return any(int(data.numbers.sum()) % 2 == 1 for data in self.data if not bool(data.pbc.any()))

    def _kinds(self) -> list[tuple[int, ...]]:
        return [tuple(data.numbers.unique().tolist()) for data in self.data]

    def _repeats(self) -> list[int]:
        """The number of atoms of the largest set of elements over that of the frame's, rounded."""
        kinds = self._kinds()
        atoms: dict[tuple[int, ...], int] = {}
        for kind, n in zip(kinds, self.n_atoms, strict=True):
            atoms[kind] = atoms.get(kind, 0) + n
        return [round(max(atoms.values()) / atoms[kind]) for kind in kinds]

    def batch(self, indices: Sequence[int], *, device: torch.device, dtype: torch.dtype) -> LabelledBatch:
        """The frames of these indices as one batch."""
        graph, fields = collate([self.data[i] for i in indices], device=device, dtype=dtype)
        labels = Targets(fields["energy"], fields["forces"].to(dtype), fields["stress"].to(dtype))
        return LabelledBatch(graph, labels, Systems(graph.numbers, graph.system, graph.n_per_system, graph.volume))

    def fingerprint(self) -> str:
        """A hash of all structures and labels."""
        names = ("numbers", "pos", "cell", "pbc", "energy", "forces", "stress")
        return fingerprint([data[name].numpy() for name in names] for data in self.data)


def _labelled_sample(atoms: Atoms, cutoff: Cutoff, keys: LabelKeys | None) -> Sample:
    """The frame with all three labels, nan where it has none: a batch may mix frames with and without."""
    labels = labels_of(atoms, keys)
    forces = np.full((len(atoms), 3), np.nan) if labels.forces is None else labels.forces
    stress = np.full((3, 3), np.nan) if labels.stress is None else labels.stress
    return make_sample(
        atoms,
        find_edges(atoms, cutoff),
        energy=torch.tensor([np.nan if labels.energy is None else labels.energy], dtype=torch.float64),
        forces=torch.tensor(forces, dtype=torch.float64),
        stress=torch.tensor(stress, dtype=torch.float64)[None],
    )


def shortest_share(data: Sample) -> float:
    """The length of the shortest edge in units of the sum of its atoms' covalent radii; infinite without edges."""
    radii = torch.tensor(covalent_radii)[data.numbers]
    r = torch.linalg.vector_norm(data.vectors, dim=1)
    return float((r / (radii[data.center] + radii[data.other])).amin()) if len(r) else math.inf


def _max_neighbors(data: Sample) -> int:
    return int(torch.bincount(data.center, minlength=1).max())


def split(frames: Sequence[Atoms], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Indices of training and validation frames, the same share of every chemical formula.

    The frames are ordered by reduced formula, at random within one, and every `1/fraction`-th is held out, at least one
    where the fraction is not 0. A formula with a single frame stays in the training set.
    """
    rng = np.random.default_rng(seed)
    formulas = [atoms.get_chemical_formula(empirical=True) for atoms in frames]
    rank = rng.permutation(len(frames))
    order = sorted(range(len(frames)), key=lambda i: (formulas[i], rank[i]))
    count = Counter(formulas)
    candidates = [i for i in order if count[formulas[i]] > 1]
    n = min(max(round(fraction * len(frames)), int(fraction > 0)), len(candidates))
    held_out = {candidates[int((k + 0.5) * len(candidates) / n)] for k in range(n)}
    return [i for i in range(len(frames)) if i not in held_out], sorted(held_out)
