"""Batches: every frame once, similar neighbour counts, bounded size, the same on every call."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ase_andersonn.training.data.sampler import BucketSampler

sizes = st.lists(st.tuples(st.integers(1, 60), st.sampled_from([8, 16, 24, 64])), min_size=1, max_size=60)


@given(sizes, st.integers(1, 100), st.integers(0, 5), st.integers(0, 5))
def test_every_frame_once_an_epoch(frames: list[tuple[int, int]], batch_atoms: int, seed: int, epoch: int) -> None:
    n_atoms, buckets = zip(*frames, strict=True)
    sampler = BucketSampler(n_atoms, buckets, batch_atoms=batch_atoms, seed=seed)
    for batches in (sampler.epoch(epoch), sampler.ordered()):
        assert sorted(i for batch in batches for i in batch) == list(range(len(frames)))
        for batch in batches:
            assert len({buckets[i] for i in batch}) == 1
            assert len(batch) == 1 or sum(n_atoms[i] for i in batch) <= batch_atoms


def test_an_epoch_depends_on_seed_and_number_alone() -> None:
    def make(seed: int) -> BucketSampler:
        return BucketSampler([4] * 50, [8, 16] * 25, batch_atoms=20, seed=seed)

    used = make(0)
    for epoch in range(3):
        used.epoch(epoch)
    assert used.epoch(3) == make(0).epoch(3)
    assert make(0).epoch(0) != make(0).epoch(1)
    assert make(0).epoch(0) != make(1).epoch(0)


def test_different_lengths() -> None:
    with pytest.raises(ValueError, match="2 atom counts and 1 buckets"):
        BucketSampler([1, 2], [8], batch_atoms=10, seed=0)


def test_repeated_frames_are_drawn_as_often_as_said() -> None:
    sampler = BucketSampler([4, 4, 4], [8, 8, 16], batch_atoms=8, seed=0, repeats=[1, 3, 2])
    for epoch in range(3):
        drawn = [frame for batch in sampler.epoch(epoch) for frame in batch]
        assert sorted(drawn) == [0, 1, 1, 1, 2, 2]
