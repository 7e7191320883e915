"""The starting guess: exact where solutions are linear in the injection, robust elsewhere."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ase_andersonn.solvers.extrapolation import Predictor


def normal(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@given(seed=st.integers(0, 2**31), history=st.integers(2, 8), exponent=st.integers(-6, 6))
def test_it_is_exact_where_solutions_are_linear_in_the_injection(seed, history, exponent):
    """Any affine combination of the kept injections, and z and lambda affine in u."""
    matrix, offset, scale = normal(seed, 6, 6), normal(seed + 1, 6), 10.0**exponent
    predictor = Predictor(history=history, noise=0.0)
    kept = [scale * normal(seed + 2 + k, 10, 6) for k in range(history)]
    for u in kept:
        predictor.update(u, u @ matrix + scale * offset, 3 * u)
    weights = normal(seed + 99, history)
    weights[-1] += 1 - weights.sum()
    u = sum(w * v for w, v in zip(weights, kept, strict=True))
    z, adjoint = predictor.guess(u)
    tolerance = 1e-6 * scale * weights.abs().sum().item()
    torch.testing.assert_close(z, u @ matrix + scale * offset, rtol=0, atol=10 * tolerance)
    torch.testing.assert_close(adjoint, 3 * u, rtol=0, atol=10 * tolerance)


def test_it_beats_the_last_solution_on_a_smooth_path():
    direction, other = normal(0, 20, 4), normal(1, 20, 4)

    def point(t):
        u = math.sin(t) * direction + math.cos(0.7 * t) * other
        return u, torch.tanh(u)

    predictor = Predictor(noise=1e-8)
    errors, last = [], point(0)[1]
    for step in range(30):
        u, z = point(0.05 * step)
        if step >= 6:
            (guess,) = predictor.guess(u)
            errors.append((guess - z).norm() / (last - z).norm())
        predictor.update(u, z)
        last = z
    assert max(errors) < 0.1


def test_noise_bounds_the_coefficients():
    """Stored solutions with errors of 1e-3 must not be amplified where the injections are nearly dependent."""
    u = normal(0, 20, 4)
    predictor = Predictor(noise=1e-3)
    for k in range(6):
        predictor.update(u + 1e-5 * normal(k + 1, 20, 4), u + 1e-3 * u.norm() / 9 * normal(k + 50, 20, 4))
    (guess,) = predictor.guess(u + 1e-5 * normal(99, 20, 4))
    assert (guess - u).norm() < 4e-3 * u.norm()


def test_one_entry_is_returned_as_it_is_and_none_without():
    predictor = Predictor()
    u, z = normal(0, 3, 2), normal(1, 3, 2)
    assert predictor.guess(u) is None
    predictor.update(u, z)
    assert torch.equal(predictor.guess(u + 1)[0], z)
    predictor.reset()
    assert predictor.guess(u) is None
    assert len(predictor) == 0


@given(seed=st.integers(0, 2**31), n=st.integers(1, 6), distance=st.floats(1e-4, 1.0))
def test_no_guess_is_given_where_the_history_does_not_fit(seed, n, distance):
    """The fit's error is the distance from the kept injections' affine hull, relative to the new one."""
    rows = torch.linalg.qr(normal(seed, 8, n + 1)).Q.T
    kept, away = rows[:n], rows[n]
    u = kept.mean(0) + distance * away
    error = distance / u.norm().item()
    for max_error, there in ((1.01 * error, True), (0.99 * error, False)):
        predictor = Predictor(noise=0.0, max_error=max_error)
        for row in kept:
            predictor.update(row, row)
        assert (predictor.guess(u) is not None) == there


def test_one_atom_that_moves_far_among_many_is_enough_for_no_guess():
    u = normal(0, 1000, 4)
    predictor = Predictor(max_error=0.1)
    for k in range(4):
        predictor.update(u + 1e-3 * normal(k + 1, 1000, 4), u)
    assert predictor.guess(u) is not None
    u[7] *= 2.0
    assert predictor.guess(u) is None


def test_what_is_not_a_number_gets_no_guess():
    predictor = Predictor(max_error=0.1)
    for k in range(3):
        predictor.update(normal(k, 3, 2), normal(k, 3, 2))
        assert predictor.guess(torch.full((3, 2), math.nan, dtype=torch.float64)) is None


def test_a_repeated_injection_does_no_harm():
    predictor = Predictor()
    u, z = normal(0, 3, 2), normal(1, 3, 2)
    for _ in range(4):
        predictor.update(u, z)
    torch.testing.assert_close(predictor.guess(u)[0], z)
    torch.testing.assert_close(predictor.guess(2 * u)[0], z)


def test_zero_injections_do_no_harm():
    predictor = Predictor(noise=0.0)
    for _ in range(3):
        predictor.update(torch.zeros(3, 2), torch.ones(3, 2))
    assert torch.equal(predictor.guess(torch.zeros(3, 2))[0], torch.ones(3, 2))


@pytest.mark.parametrize("history", [1, 2, 3])
def test_the_oldest_entries_are_forgotten(history):
    """After many updates the guess is that of the last entries alone."""
    predictor, fresh = Predictor(history=history), Predictor(history=history)
    for k in range(7):
        predictor.update(normal(k, 3, 2), normal(k + 20, 3, 2))
        if k >= 7 - history:
            fresh.update(normal(k, 3, 2), normal(k + 20, 3, 2))
    assert len(predictor) == history
    u = normal(9, 3, 2)
    torch.testing.assert_close(predictor.guess(u)[0], fresh.guess(u)[0])


def test_another_shape_starts_afresh():
    predictor = Predictor()
    u, z = normal(0, 3, 2), normal(1, 3, 2)
    predictor.update(u, z)
    assert predictor.guess(normal(2, 4, 2)) is None
    assert predictor.guess(u.float()) is None
    predictor.update(normal(2, 4, 2), normal(3, 4, 2))
    assert predictor.guess(u) is None
    assert len(predictor) == 1


def test_guesses_carry_no_graph():
    predictor = Predictor()
    for k in range(3):
        predictor.update(normal(k, 3, 2).requires_grad_(), normal(k, 3, 2).requires_grad_())
    assert not predictor.guess(normal(9, 3, 2).requires_grad_())[0].requires_grad


@pytest.mark.parametrize(
    "arguments", [{"history": 0}, {"noise": -1.0}, {"noise": float("nan")}, {"max_error": math.nan}]
)
def test_senseless_settings_are_errors(arguments):
    with pytest.raises(ValueError, match="must"):
        Predictor(**arguments)
