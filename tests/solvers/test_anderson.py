"""What Anderson acceleration is: GMRES on linear maps, a window, and safeguards of its least squares."""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from maps import Linear, Recorded, saturating

from ase_andersonn.solvers import Anderson, Picard, Segments, gmres, solve


@given(seed=st.integers(0, 2**31), k=st.integers(1, 6), rho=st.floats(0.1, 2.0))
def test_on_linear_maps_it_is_gmres(seed, k, rho):
    """The point after k + 1 evaluations is f of GMRES' k-th iterate (Walker and Ni 2011, theorem 2.2)."""
    linear = Linear.random(seed, 10, 7, rho)
    f = Recorded(linear)
    solve(f, linear.start, solver=Anderson(window=8, ridge=0.0), tol=1e-14, max_steps=k + 2)
    krylov = gmres(lambda z: z @ linear.matrix, linear.b, linear.start, tol=1e-14, window=k, max_steps=k + 2)
    torch.testing.assert_close(f.points[k + 1], krylov.value, rtol=1e-6, atol=1e-6)


def test_a_space_of_few_dimensions_is_solved_exactly_and_redundant_columns_drop_out():
    f = Linear.random(0, 1, 3, 0.9)
    found = solve(f, f.start, solver=Anderson(window=6), tol=1e-12, max_steps=30)
    assert found.evaluations <= 6
    torch.testing.assert_close(found.value, f.solution)
    stuck = solve(f, f.start, solver=Anderson(window=6), tol=1e-300, max_steps=30)
    assert stuck.counters.dropped > 0
    torch.testing.assert_close(stuck.value, f.solution)


@pytest.mark.parametrize("rho", [0.8, 0.93])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_needs_fewer_evaluations_than_plain_iteration(rho, dtype):
    f = Linear.random(1, 100, 16, rho, dtype)
    fast, slow = (solve(f, f.start, solver=s, tol=1e-5, max_steps=500) for s in (Anderson(), Picard()))
    assert fast.converged.all()
    assert slow.converged.all()
    assert 2 * fast.evaluations <= slow.evaluations


def test_float32_reaches_the_rounding_of_its_numbers():
    f = Linear.random(2, 100, 16, 0.8, torch.float32)
    found = solve(f, f.start, solver=Anderson(), tol=2e-7, max_steps=100)
    assert found.converged.all()
    assert (found.value.double() - f.solution).norm() <= 2e-6 * f.solution.norm()


@pytest.mark.parametrize("segments", [None, Segments(torch.zeros(8, dtype=torch.int64), 1)], ids=["host", "tensors"])
def test_wild_weights_are_capped(segments):
    f = Linear.random(3, 8, 4, 0.95)
    settings = {"tol": 1e-8, "max_steps": 400, "segments": segments}
    found = solve(f, f.start, solver=Anderson(max_weight=1.0), **settings)
    assert found.counters.capped > 0
    assert found.converged.all()
    assert solve(f, f.start, solver=Anderson(), **settings).counters.capped == 0


@pytest.mark.parametrize("n", [1, 3])
def test_kept_history_helps_on_a_drifting_problem(n):
    """b moves a little in each of twenty steps: with the differences of earlier steps there is less to learn."""
    f = Linear.random(4, 12, 20, 0.75)
    segments = None if n == 1 else Segments(torch.arange(n).repeat_interleave(12 // n), n)
    drift = 1e-2 * torch.randn(12, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    evaluations = {True: 0, False: 0}
    for keep in evaluations:
        z, state = f.start, None
        for step in range(20):
            moved = Linear(f.matrix, f.b + step * drift)
            found = solve(
                lambda z, moved=moved: saturating(moved, z),
                z,
                solver=Anderson(),
                tol=1e-3,
                max_steps=200,
                segments=segments,
                state=state if keep else None,
            )
            assert found.converged.all()
            z, state = found.value, found.state
            evaluations[keep] += found.evaluations
    assert evaluations[True] < 0.8 * evaluations[False]


def test_a_kept_state_counts_anew():
    f = Linear.random(0, 1, 3, 0.9)
    first = solve(f, f.start, solver=Anderson(), tol=1e-300, max_steps=30)
    assert first.counters.dropped > 0
    again = solve(f, first.value, solver=Anderson(), tol=1e-10, max_steps=30, state=first.state)
    assert again.counters.dropped == 0


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_a_state_can_be_copied(clone):
    f = Linear.random(5, 12, 8, 0.9)
    found = solve(f, f.start, solver=Anderson(), tol=1e-4, max_steps=50)
    copied = clone(found.state)
    one, other = (
        solve(f, found.value, solver=Anderson(), tol=1e-10, max_steps=50, state=s) for s in (found.state, copied)
    )
    assert one.evaluations == other.evaluations
    assert torch.equal(one.value, other.value)


@pytest.mark.parametrize(
    ("z0", "segments"),
    [
        (torch.zeros(5, 3), None),
        (torch.zeros(4, 3, dtype=torch.float64), None),
        (torch.zeros(4, 3), Segments(torch.tensor([0, 0, 1, 1]), 2)),
    ],
)
def test_a_state_of_another_shape_is_an_error(z0, segments):
    state = solve(lambda z: 0.5 * z + 1, torch.zeros(4, 3), solver=Anderson(), tol=1e-3, max_steps=20).state
    with pytest.raises(ValueError, match="pass state=None"):
        solve(lambda z: 0.5 * z + 1, z0, solver=Anderson(), tol=1e-3, max_steps=20, state=state, segments=segments)


@pytest.mark.gpu
@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("check_every", [1, 4])
def test_a_gpu_finds_the_same(n, check_every):
    f = Linear.random(6, 64, 16, 0.9, torch.float32)
    segments = None if n == 1 else Segments(torch.arange(n).repeat_interleave(64 // n), n)
    on_gpu = Linear(f.matrix.cuda(), f.b.cuda())
    segments_on_gpu = None if segments is None else Segments(segments.index.cuda(), n)
    host = solve(f, f.start, solver=Anderson(), tol=1e-5, max_steps=100, segments=segments)
    found = solve(
        on_gpu,
        on_gpu.start,
        solver=Anderson(),
        tol=1e-5,
        max_steps=100,
        segments=segments_on_gpu,
        check_every=check_every,
    )
    assert found.converged.all()
    torch.testing.assert_close(found.value.cpu(), host.value, rtol=0, atol=1e-3)
