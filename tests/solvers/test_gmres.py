"""GMRES, and its use where the iteration fails."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from maps import Linear

from ase_andersonn.solvers import Anderson, Picard, Segments, gmres, solve_linear


@given(
    seed=st.integers(0, 2**31),
    n_rows=st.integers(1, 10),
    n_channels=st.integers(1, 10),
    rho=st.floats(0.0, 0.95),
    window=st.integers(2, 30),
)
def test_linear_problems_are_solved(seed, n_rows, n_channels, rho, window):
    f = Linear.random(seed, n_rows, n_channels, rho)
    found = gmres(lambda x: x @ f.matrix, f.b, tol=1e-9, window=window, max_steps=1000)
    assert found.converged.all()
    assert (found.value - f.solution).norm() <= 1e-8 * f.solution.norm() / (1 - rho)


def test_it_ends_after_as_many_steps_as_there_are_eigenvalues():
    f = Linear.random(0, 50, 5, 3.0)
    found = gmres(lambda x: x @ f.matrix, f.b, f.start, tol=1e-10)
    assert found.converged.all()
    assert found.evaluations <= 5 + 2
    torch.testing.assert_close(found.value, f.solution)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_start_at_the_solution_costs_one_evaluation(dtype):
    f = Linear.random(1, 20, 5, 0.9, dtype)
    found = gmres(lambda x: x @ f.matrix, f.b, f.solution.to(dtype), tol=1e-5)
    assert found.evaluations == 1
    assert found.value.dtype == dtype


def test_a_problem_without_solution_ends_and_says_so():
    found = gmres(lambda x: x, torch.ones(3, 2), tol=1e-6, max_steps=50)
    assert not found.converged.any()
    assert found.evaluations <= 50
    assert found.value.isfinite().all()


def test_a_map_that_is_not_finite_ends_at_once():
    found = gmres(lambda x: x * float("nan"), torch.ones(3, 2), tol=1e-6)
    assert not found.converged.any()
    assert found.evaluations == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tol": 0.0}, "tol is 0.0"),
        ({"max_steps": 0}, "max_steps is 0"),
        ({"window": 0}, "window is 0"),
        ({"x0": torch.ones(2, 2)}, "x0 must have the shape of b"),
        ({"b": torch.ones(3, 2, dtype=torch.int64)}, "torch.int64"),
        ({"segments": Segments(torch.zeros(2, dtype=torch.int64), 1)}, "one entry a row"),
    ],
)
def test_arguments_that_make_no_problem(changed, message):
    with pytest.raises(ValueError, match=message):
        gmres(**({"matvec": lambda x: 0.5 * x, "b": torch.ones(3, 2)} | changed))


@pytest.mark.parametrize("segments", [None, Segments(torch.arange(4).repeat_interleave(3), 4)], ids=["one", "four"])
def test_the_fall_back_solves_what_the_iteration_does_not(segments):
    f = Linear.random(2, 12, 6, 3.0)
    found = solve_linear(f, f.start, solver=Picard(), tol=1e-9, max_steps=30, segments=segments)
    assert found.converged.all()
    assert found.counters.fallbacks == (1 if segments is None else 4)
    torch.testing.assert_close(found.value, f.solution, rtol=1e-6, atol=1e-6)


def test_problems_that_had_converged_keep_their_values():
    easy, hard = Linear.random(3, 4, 6, 0.2), Linear.random(4, 5, 6, 3.0)
    segments = Segments(torch.tensor([0] * 4 + [1] * 5), 2)

    def f(x):
        return torch.cat((easy(x[:4]), hard(x[4:])))

    found = solve_linear(f, torch.zeros(9, 6).double(), solver=Picard(), tol=1e-6, max_steps=30, segments=segments)
    alone = solve_linear(easy, easy.start, solver=Picard(), tol=1e-6, max_steps=30)
    assert found.converged.all()
    assert found.counters.fallbacks == 1
    torch.testing.assert_close(found.value[:4], alone.value, rtol=1e-14, atol=1e-14)
    assert found.steps[0] == alone.steps[0] < found.steps[1]


def test_without_need_there_is_no_fall_back():
    f = Linear.random(5, 12, 6, 0.8)
    found = solve_linear(f, f.start, solver=Anderson(), tol=1e-8, max_steps=50)
    assert found.converged.all()
    assert found.counters.fallbacks == 0
