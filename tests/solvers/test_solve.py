"""Laws of `solve` that hold for every solver."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from maps import Linear, Recorded, saturating

from ase_andersonn.solvers import Anderson, Broyden, Picard, Segments, solve
from ase_andersonn.solvers.base import Safeguards

SOLVERS = [
    Anderson(),
    Anderson(mixing=0.7),
    Anderson(window=1),
    Picard(),
    Picard(mixing=0.8),
    Broyden(),
    Broyden(window=3),
]
DTYPES = [torch.float32, torch.float64]


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@given(
    seed=st.integers(0, 2**31),
    n_rows=st.integers(1, 20),
    n_channels=st.integers(1, 12),
    rho=st.floats(0.0, 0.8),
    dtype=st.sampled_from(DTYPES),
    exponent=st.integers(-8, 8),
)
def test_linear_contractions_are_solved_to_the_tolerance(solver, seed, n_rows, n_channels, rho, dtype, exponent):
    f = Linear.random(seed, n_rows, n_channels, rho, dtype)
    f = Linear(f.matrix, f.b * 10.0**exponent)
    tol = 1e-5 if dtype == torch.float32 else 1e-10
    found = solve(f, f.start, solver=solver, tol=tol, max_steps=500)
    assert found.converged.all()
    assert found.value.dtype == dtype
    assert found.residual.item() <= tol
    error = (found.value.double() - f.solution).norm()
    assert error <= 1.01 * tol * f.solution.norm() / (1 - rho)


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_start_at_the_solution_costs_one_evaluation(solver, dtype):
    f = Linear.random(0, 30, 8, 0.9, dtype)
    found = solve(f, f.solution.to(dtype), solver=solver, tol=1e-5, max_steps=50)
    assert found.evaluations == 1
    assert found.steps.tolist() == [1]
    assert found.converged.all()


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize("exponent", [-27, 27])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_in_the_solvers_has_a_scale(solver, exponent, dtype):
    """s f(z / s) with s a power of two near 1e-8 or 1e8: the same iterates, bit by bit."""
    f, s = Linear.random(1, 30, 8, 0.9, dtype), 2.0**exponent
    settings = {"solver": solver, "tol": 1e-5, "max_steps": 40}
    one = solve(lambda z: saturating(f, z), f.start, **settings)
    other = solve(lambda z: s * saturating(f, z / s), f.start, **settings)
    assert one.evaluations == other.evaluations
    assert torch.equal(one.value * s, other.value)
    assert torch.equal(one.residual, other.residual)


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
@pytest.mark.parametrize("check_every", [1, 3])
@pytest.mark.parametrize("max_steps", [1, 2, 6, 200])
def test_the_value_was_evaluated_and_has_the_reported_residual(solver, check_every, max_steps):
    linear = Linear.random(2, 20, 6, 0.8)
    f = Recorded(lambda z: saturating(linear, z))
    found = solve(f, linear.start, solver=solver, tol=1e-8, max_steps=max_steps, check_every=check_every)
    assert found.evaluations == len(f.values) <= max_steps
    k = next(k for k, value in enumerate(f.values) if torch.equal(value, found.value))
    assert found.residual.item() == pytest.approx(((found.value - f.points[k]).norm() / found.value.norm()).item())
    assert found.converged.item() == (found.residual.item() <= 1e-8)
    assert not found.value.requires_grad


def test_without_convergence_the_best_evaluation_is_returned():
    f = Recorded(lambda z: torch.where(z.abs() < 1, -1.5 * z + 1, z + 2))
    found = solve(f, torch.full((1, 1), 0.5), solver=Picard(), tol=1e-6, max_steps=7)
    best = min((v - z).norm() for v, z in zip(f.values, f.points, strict=True))
    assert not found.converged.any()
    assert found.residual.item() * found.value.norm().item() == pytest.approx(best.item())


@pytest.mark.parametrize("solver", [Anderson(), Picard(), Broyden()], ids=str)
def test_a_diverging_map_is_damped_until_it_converges(solver):
    f = Linear(-3.0 * torch.eye(4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64))
    found = solve(f, f.start, solver=solver, tol=1e-9, max_steps=200, safeguards=Safeguards(growth=2.0))
    assert found.converged.all()
    torch.testing.assert_close(found.value, f.solution)
    if solver == Picard():
        assert found.counters.grown >= 2


@pytest.mark.parametrize("solver", [Anderson(), Picard(), Broyden()], ids=str)
@pytest.mark.parametrize("check_every", [1, 2])
def test_a_map_that_leaves_its_domain_is_called_back(solver, check_every):
    """sqrt(4 - 2.5 z) is nan at its own first value."""
    found = solve(
        lambda z: torch.sqrt(4 - 2.5 * z),
        torch.zeros(3, 2, dtype=torch.float64),
        solver=solver,
        tol=1e-10,
        max_steps=200,
        check_every=check_every,
    )
    assert found.counters.nonfinite >= 1
    assert found.converged.all()
    torch.testing.assert_close(found.value**2, 4 - 2.5 * found.value)


@pytest.mark.parametrize("solver", [Anderson(), Picard(), Broyden()], ids=str)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_map_that_is_never_finite_is_given_up_at_once(solver, bad):
    found = solve(lambda z: torch.full_like(z, bad), torch.ones(3, 2), solver=solver, tol=1e-3, max_steps=100)
    assert found.evaluations == 1
    assert not found.converged.any()
    assert found.residual.tolist() == [float("inf")]
    assert found.counters.nonfinite == 1


@pytest.mark.parametrize("solver", [Anderson(), Picard(), Broyden()], ids=str)
def test_a_map_without_a_fixed_point_is_counted_as_stagnating(solver):
    found = solve(lambda z: z + 1, torch.zeros(3, 2), solver=solver, tol=1e-3, max_steps=50)
    assert not found.converged.any()
    assert found.counters.stagnated >= 1
    assert found.value.isfinite().all()


@pytest.mark.parametrize("solver", [Anderson(), Picard(), Broyden()], ids=str)
def test_trailing_dimensions_are_free(solver):
    f = Linear.random(3, 12, 6, 0.7)
    flat = solve(f, f.start, solver=solver, tol=1e-9, max_steps=100)
    shaped = solve(
        lambda z: f(z.reshape(12, 6)).reshape(12, 2, 3),
        torch.zeros(12, 2, 3).double(),
        solver=solver,
        tol=1e-9,
        max_steps=100,
    )
    torch.testing.assert_close(shaped.value.reshape(12, 6), flat.value)


@pytest.mark.parametrize("segments", [None, Segments(torch.arange(4).repeat_interleave(3), 4)], ids=["one", "four"])
@pytest.mark.parametrize("solver", [Anderson(), Picard(), Broyden()], ids=str)
def test_strided_tensors_do(solver, segments):
    f = Linear.random(3, 12, 6, 0.7)
    plain = solve(f, f.start, solver=solver, tol=1e-9, max_steps=100, segments=segments)
    strided = solve(
        lambda z: f(z).T.contiguous().T,
        torch.zeros(6, 12, dtype=torch.float64).T,
        solver=solver,
        tol=1e-9,
        max_steps=100,
        segments=segments,
    )
    assert strided.evaluations == plain.evaluations
    torch.testing.assert_close(strided.value, plain.value)


def test_solutions_are_repeatable():
    f = Linear.random(4, 64, 16, 0.9, torch.float32)
    one, other = (solve(f, f.start, solver=Anderson(), tol=1e-5, max_steps=100) for _ in range(2))
    assert torch.equal(one.value, other.value)


def test_zero_is_a_fixed_point_of_a_map_without_source():
    f = Linear(0.5 * torch.eye(3), torch.zeros(4, 3))
    found = solve(f, f.start, solver=Anderson(), tol=1e-6, max_steps=10)
    assert found.converged.all()
    assert found.evaluations == 1


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"z0": torch.zeros(3, 2, dtype=torch.float16)}, "float32 or torch.float64"),
        ({"z0": torch.zeros(3, 2, dtype=torch.int64)}, "float32 or torch.float64"),
        ({"tol": 0.0}, "tol is 0.0"),
        ({"tol": float("nan")}, "tol is nan"),
        ({"max_steps": 0}, "max_steps is 0"),
        ({"check_every": 0}, "check_every 0"),
        ({"segments": Segments(torch.zeros(2, dtype=torch.int64), 1)}, "one entry a row"),
    ],
)
def test_senseless_arguments_are_errors(change, text):
    arguments = {"z0": torch.zeros(3, 2), "solver": Picard(), "tol": 1e-3, "max_steps": 10} | change
    with pytest.raises(ValueError, match=text):
        solve(lambda z: z, **arguments)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Anderson(window=0),
        lambda: Anderson(mixing=0.0),
        lambda: Anderson(mixing=1.5),
        lambda: Anderson(ridge=-1.0),
        lambda: Anderson(max_weight=0.0),
        lambda: Picard(mixing=0.0),
        lambda: Broyden(window=0),
        lambda: Safeguards(growth=1.0),
        lambda: Safeguards(patience=0),
        lambda: Safeguards(min_damping=0.0),
    ],
)
def test_senseless_settings_are_errors(make):
    with pytest.raises(ValueError, match="must"):
        make()


class Scripted:
    """f(z) = z + c_k at the k-th evaluation: residuals of known size, whatever the solver makes of them."""

    def __init__(self, sizes):
        self.sizes, self.values = sizes, []

    def __call__(self, z):
        self.values.append(z + self.sizes[len(self.values)] * torch.eye(1, 4, dtype=z.dtype))
        return self.values[-1]


def test_the_value_is_that_of_the_smallest_residual():
    """Also where the residual stays small beside the value itself."""
    sizes = [1.0, 0.01, 0.02, 0.03, 0.025]
    f = Scripted(sizes)
    found = solve(f, torch.full((1, 4), 10.0, dtype=torch.float64), solver=Picard(), tol=1e-9, max_steps=5)
    assert torch.equal(found.value, f.values[1])
    assert found.residual.item() == pytest.approx(0.01 / f.values[1].norm().item())
    assert found.counters.grown == 0
    assert not found.converged.any()


@pytest.mark.parametrize("check_every", [1, 3, 4])
def test_residuals_are_read_every_so_many_evaluations_and_at_the_last(check_every):
    sizes = [1e-12 if k == 4 else 0.1 / (k + 1) for k in range(9)]
    f = Scripted(sizes)
    found = solve(
        f, torch.ones(1, 4, dtype=torch.float64), solver=Picard(), tol=1e-9, max_steps=9, check_every=check_every
    )
    if check_every == 3:  # evaluations 1, 4, 7 and 9 are read
        assert (found.evaluations, found.converged.tolist()) == (9, [False])
        assert torch.equal(found.value, f.values[8])
    else:
        assert (found.evaluations, found.converged.tolist()) == (5, [True])
        assert torch.equal(found.value, f.values[4])
