"""A batch of independent problems gives what each of them gives alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from maps import Linear, Recorded, saturating

from ase_andersonn.solvers import Anderson, Broyden, Picard, Segments, gmres, solve

SOLVERS = [Anderson(), Anderson(window=2, mixing=0.8), Picard(), Broyden(window=4)]


class Batch:
    """Maps side by side; problem k has its own size, spectral radius and scale."""

    def __init__(self, maps) -> None:
        self.maps, self.lengths = maps, [len(f.b) for f in maps]
        index = torch.repeat_interleave(torch.arange(len(maps)), torch.tensor(self.lengths))
        self.segments = Segments(index, len(maps))
        self.start = torch.cat([f.start for f in maps])

    def __call__(self, z):
        return torch.cat([saturating(f, part) for f, part in zip(self.maps, z.split(self.lengths), strict=True)])


def problems(seed, lengths, n_channels=5, dtype=torch.float64):
    rhos = torch.rand(len(lengths), generator=torch.Generator().manual_seed(seed)).tolist()
    return [
        Linear.random(seed + k, n, n_channels, 0.95 * rho, dtype)
        for k, (n, rho) in enumerate(zip(lengths, rhos, strict=True))
    ]


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@given(seed=st.integers(0, 2**31), lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_a_batch_is_its_problems(solver, seed, lengths):
    batch = Batch(problems(seed, lengths))
    settings = {"solver": solver, "tol": 1e-7, "max_steps": 200}
    together = solve(batch, batch.start, segments=batch.segments, **settings)
    assert together.converged.all()
    assert together.evaluations == together.steps.max()
    for k, (f, value) in enumerate(zip(batch.maps, together.value.split(lengths), strict=True)):
        alone = solve(lambda z, f=f: saturating(f, z), f.start, **settings)
        assert abs(together.steps[k].item() - alone.evaluations) <= 1  # rounding may tip the last comparison
        torch.testing.assert_close(value, alone.value, rtol=0, atol=1e-5)


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_converged_problems_are_frozen(solver):
    maps = [Linear.random(0, 4, 5, 0.1), Linear.random(1, 6, 5, 0.9)]
    batch = Batch(maps)
    f = Recorded(batch)
    found = solve(f, batch.start, solver=solver, tol=1e-6, max_steps=200, segments=batch.segments)
    first, last = found.steps.tolist()
    assert first < last
    for z in f.points[first:]:
        assert torch.equal(z[:4], f.values[first - 1][:4])
    assert torch.equal(found.value[:4], f.values[first - 1][:4])


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize("check_every", [1, 3])
def test_a_broken_problem_does_not_touch_the_others(solver, check_every):
    maps = problems(3, [4, 3, 5])
    sound, broken = Batch(maps), Batch(maps)
    calls = []

    def f(z):
        calls.append(None)
        value = broken(z)
        value[4:7] = float("nan") if len(calls) > 2 else value[4:7]
        return value

    settings = {"solver": solver, "tol": 1e-7, "max_steps": 60, "segments": sound.segments, "check_every": check_every}
    with_it = solve(f, broken.start, **settings)
    without = solve(sound, sound.start, **settings)
    assert with_it.converged.tolist() == [True, False, True]
    assert with_it.counters.nonfinite >= 1
    assert with_it.value.isfinite().all()
    for rows in (slice(0, 4), slice(7, 12)):
        assert torch.equal(with_it.value[rows], without.value[rows])


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_a_problem_that_breaks_for_a_moment_goes_on_as_it_would_alone(solver):
    """The difference to a point from before the restart is none, in a batch as alone."""
    maps = [Linear.random(0, 4, 5, 0.5), Linear.random(1, 3, 5, 0.97), Linear.random(2, 5, 5, 0.5)]
    batch, settings = Batch(maps), {"solver": solver, "tol": 1e-9, "max_steps": 200}

    def breaking(f, rows):
        def broken(z):
            value = f(z)
            value[rows] = float("nan") if len(recorded.points) == 5 else value[rows]
            return value

        recorded = Recorded(broken)
        return recorded

    together, alone = breaking(batch, slice(4, 7)), breaking(lambda z: saturating(maps[1], z), slice(None))
    found = solve(together, batch.start, segments=batch.segments, **settings)
    single = solve(alone, maps[1].start, **settings)
    assert found.converged.all()
    assert found.counters.nonfinite == single.counters.nonfinite == 1
    assert abs(found.steps[1].item() - single.evaluations) <= 1
    assert single.evaluations > 9
    for several, one in zip(together.points[:11], alone.points[:11], strict=False):
        torch.testing.assert_close(several[4:7], one, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("mixing", [1.0, 0.6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_windows_of_anderson_do_the_same(mixing, dtype):
    """One problem goes through Python floats, a batch of one through tensors."""
    f, one = Linear.random(5, 40, 8, 0.93, dtype), Segments(torch.zeros(40, dtype=torch.int64), 1)
    tol = 1e-5 if dtype == torch.float32 else 1e-10
    settings = {"solver": Anderson(mixing=mixing), "tol": tol, "max_steps": 200}
    host = solve(f, f.start, **settings)
    tensors = solve(f, f.start, segments=one, **settings)
    assert abs(host.evaluations - tensors.evaluations) <= 1
    torch.testing.assert_close(host.value, tensors.value, rtol=0, atol=20 * tol)


def test_gmres_has_a_krylov_space_for_each_problem():
    maps = problems(7, [3, 8, 5])
    batch = Batch(maps)

    def matvec(z):
        return torch.cat([part @ f.matrix for f, part in zip(maps, z.split(batch.lengths), strict=True)])

    b = torch.cat([f.b for f in maps])
    found = gmres(matvec, b, tol=1e-9, segments=batch.segments)
    assert found.converged.all()
    torch.testing.assert_close(found.value, torch.cat([f.solution for f in maps]), rtol=1e-7, atol=1e-7)


def test_sums_over_segments():
    segments = Segments(torch.tensor([0, 0, 2, 2, 2]), 3)
    assert segments.lengths.tolist() == [2, 0, 3]
    assert segments.total(torch.arange(5.0)[:, None]).T.tolist() == [[1.0, 0.0, 9.0]]
    assert segments.spread(torch.tensor([5, 6, 7])).tolist() == [5, 5, 7, 7, 7]


def test_a_problem_without_rows_is_converged():
    f = Linear.random(0, 5, 4, 0.5)
    segments = Segments(torch.tensor([0, 0, 2, 2, 2]), 3)
    found = solve(f, f.start, solver=Anderson(), tol=1e-8, max_steps=50, segments=segments)
    assert found.converged.all()
    assert found.steps[1] == 1
