"""Batches of frames with similar numbers of neighbours."""

from collections.abc import Sequence

import numpy as np

from ase_andersonn.batching import pack


class BucketSampler:
    """Every frame `repeats` times an epoch, in batches of one neighbour bucket and at most `batch_atoms` atoms.

    The batches of an epoch depend on seed and epoch alone, so a run resumed in the middle of an epoch sees the rest of
    the same batches. A frame larger than `batch_atoms` is a batch of its own.

    Args:
        n_atoms: of each frame.
        buckets: padded neighbour count of each frame.
        batch_atoms: atoms in a batch, at most.
        seed: of the shuffle.
        repeats: how often each frame is drawn in an epoch; once where not given.
    """

    def __init__(
        self,
        n_atoms: Sequence[int],
        buckets: Sequence[int],
        *,
        batch_atoms: int,
        seed: int,
        repeats: Sequence[int] | None = None,
    ) -> None:
        if len(n_atoms) != len(buckets):
            raise ValueError(f"{len(n_atoms)} atom counts and {len(buckets)} buckets given; both are one per frame.")
        self.n_atoms = list(n_atoms)
        self.buckets = np.asarray(buckets, dtype=np.int64)
        self.batch_atoms = batch_atoms
        self.seed = seed
        self.drawn = np.repeat(np.arange(len(n_atoms)), 1 if repeats is None else np.asarray(repeats))

    def epoch(self, epoch: int) -> list[list[int]]:
        """The shuffled batches of an epoch, as indices of frames."""
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(self.drawn)
        batches = self._fill(order)
        return [batches[i] for i in rng.permutation(len(batches))]

    def ordered(self) -> list[list[int]]:
        """The batches without a shuffle."""
        return self._fill(np.arange(len(self.n_atoms)))

    def _fill(self, order: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[list[int]]:
        buckets = (order[self.buckets[order] == bucket].tolist() for bucket in np.unique(self.buckets))
        return [batch for frames in buckets for batch in pack(self.n_atoms, self.batch_atoms, frames)]
