"""The cell: a contraction for every geometry and all weights, with an exact Jacobian in both directions."""

import pytest
import torch
from bonds import RANKS, SCALARS, directions, random_bonds, shape_of
from hypothesis import given
from hypothesis import strategies as st

from ase_andersonn.nn.equilibrium_cell import ContractiveCell, Injection, reverse_gates
from ase_andersonn.nn.irreps import dim
from ase_andersonn.nn.messages import FeatureShape

N_ATOMS, N_NEIGHBORS, N_CHANNELS = 6, 5, SCALARS
seeds = st.integers(0, 2**31)
sizes = st.floats(0.01, 100.0)


def randn(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def random_cell(seed: int, size: float = 1.0, contraction: float = 0.7, rank: int = 0) -> ContractiveCell:
    """Any weights."""
    generator, cell = torch.Generator().manual_seed(seed), ContractiveCell(contraction, shape_of(rank)).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.copy_(size * randn(generator, *parameter.shape))
    return cell.requires_grad_(False)


def random_graph(seed: int, rank: int = 0) -> tuple[Injection, torch.Tensor, torch.Tensor]:
    """An injection with gates at their bound, neighbours, and the flat places of the reversed pairs.

    The pairs form a random graph; an atom may be its own neighbour, as its periodic image is.
    """
    generator = torch.Generator().manual_seed(seed)
    neighbors = torch.arange(N_ATOMS)[:, None].repeat(1, N_NEIGHBORS)
    reverse = torch.arange(N_ATOMS * N_NEIGHBORS).view(N_ATOMS, N_NEIGHBORS)
    mask = torch.zeros(N_ATOMS, N_NEIGHBORS, dtype=torch.bool)
    filled = [0] * N_ATOMS
    for i, j in torch.randint(N_ATOMS, (3 * N_ATOMS, 2), generator=generator).tolist():
        if filled[i] + 1 + (i == j) > N_NEIGHBORS or filled[j] + 1 > N_NEIGHBORS:
            continue
        a, filled[i] = filled[i], filled[i] + 1
        b, filled[j] = filled[j], filled[j] + 1
        neighbors[i, a], neighbors[j, b] = j, i
        reverse[i, a], reverse[j, b] = j * N_NEIGHBORS + b, i * N_NEIGHBORS + a
        mask[i, a] = mask[j, b] = True
    gates = torch.where(
        mask[..., None], random_bonds(shape_of(rank), directions(N_ATOMS, N_NEIGHBORS, seed=seed), seed), 0.0
    )
    u, v = 3 * randn(generator, 2, N_ATOMS, size_of(rank))
    return Injection(u, v, gates), neighbors, reverse


def size_of(rank: int) -> int:
    """Length of a row of features."""
    return dim(*shape_of(rank))


def norm(z: torch.Tensor) -> float:
    """`max_i |z_i|₂`."""
    return float(z.norm(dim=-1).max())


@pytest.mark.parametrize("rank", RANKS)
@given(seed=seeds, size=sizes, distance=sizes, contraction=st.sampled_from([0.3, 0.7, 0.95]))
def test_cell_is_a_contraction(rank: int, seed: int, size: float, distance: float, contraction: float) -> None:
    """`|f(z) − f(y)| ≤ γ |z − y|` for random graphs, weights and features."""
    cell = random_cell(seed, size, contraction, rank).weights()
    injection, neighbors, _ = random_graph(seed, rank)
    generator = torch.Generator().manual_seed(seed)
    z = distance * randn(generator, N_ATOMS, size_of(rank))
    y = z + distance * randn(generator, *z.shape)
    images = [cell.apply(x, injection, neighbors) for x in (z, y)]
    assert norm(images[0] - images[1]) <= contraction * norm(z - y) * (1 + 1e-12)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("size", [0.1, 1.0, 30.0])
def test_norms_of_the_matrices_are_bounded(rank: int, size: float) -> None:
    """Of every rank: a random pair of features would not notice a bound that is too large."""
    weights = random_cell(2, size, 0.7, rank).weights()
    for matrices, bound in ((weights.w_send, 1.0), (weights.w_mix, 0.5**0.5), (weights.w_out, 0.7)):
        assert len(matrices) == rank + 1
        assert all(float(torch.linalg.matrix_norm(m, 2)) <= bound * (1 + 1e-12) for m in matrices)


def test_bound_is_reached() -> None:
    """The norms are not held smaller than they need to be: identities at slope 1 expand by γ."""
    cell = ContractiveCell(0.7, FeatureShape(N_CHANNELS, 0, 0)).double()
    eye = torch.eye(N_CHANNELS, dtype=torch.float64)
    with torch.no_grad():
        cell.send.weight.copy_(9 * eye)
        cell.mix.weight.copy_(9 * torch.cat([eye, eye], 1))
        cell.out.weight.copy_(9 * eye)
    neighbors = torch.tensor([[1], [0]])
    zero = torch.zeros(2, N_CHANNELS, dtype=torch.float64)
    injection = Injection(zero, zero + 2.3994, torch.ones(2, 1, N_CHANNELS, dtype=torch.float64))
    t = torch.ones_like(zero)
    weights = cell.requires_grad_(False).weights()
    _, slope = weights.linearize(zero, injection, neighbors)
    assert norm(weights.jvp(t, slope, injection.gates, neighbors)) == pytest.approx(0.7 * norm(t), rel=1e-6)


@pytest.mark.parametrize("rank", RANKS)
@given(seed=seeds)
def test_jvp_and_vjp_are_the_jacobian_and_its_transpose(rank: int, seed: int) -> None:
    cell, (injection, neighbors, reverse) = random_cell(seed, rank=rank).weights(), random_graph(seed, rank)
    generator = torch.Generator().manual_seed(seed)
    z, t = randn(generator, 2, N_ATOMS, size_of(rank))
    _, slope = cell.linearize(z, injection, neighbors)

    def f(x: torch.Tensor) -> torch.Tensor:
        return cell.apply(x, injection, neighbors)

    _, along = torch.func.jvp(f, (z,), (t,))
    torch.testing.assert_close(cell.jvp(t, slope, injection.gates, neighbors), along, rtol=1e-12, atol=1e-13)
    _, transposed = torch.func.vjp(f, z)
    reversed_gates = reverse_gates(injection.gates, reverse)
    expected = transposed(t)[0]
    torch.testing.assert_close(cell.vjp(t, slope, reversed_gates, neighbors), expected, rtol=1e-12, atol=1e-13)


def test_slope_is_the_derivative_of_the_activation() -> None:
    cell, (injection, neighbors, _) = random_cell(3).weights(), random_graph(3)
    z = randn(torch.Generator().manual_seed(4), N_ATOMS, N_CHANNELS)

    def f(v: torch.Tensor) -> torch.Tensor:
        return cell.apply(z, injection._replace(v=v), neighbors)

    t = randn(torch.Generator().manual_seed(5), N_ATOMS, N_CHANNELS)
    _, along = torch.func.jvp(f, (injection.v,), (t,))
    _, slope = cell.linearize(z, injection, neighbors)
    torch.testing.assert_close((slope * t) @ cell.w_out[0].T, along, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("rank", RANKS)
def test_cotangents_are_those_of_back_propagation(rank: int) -> None:
    """Of `⟨λ, f(z)⟩` in `u`, `v` and the gates."""
    cell, (injection, neighbors, _) = random_cell(3, rank=rank).weights(), random_graph(4, rank)
    z, adjoint = randn(torch.Generator().manual_seed(5), 2, N_ATOMS, size_of(rank))

    def f(*parts: torch.Tensor) -> torch.Tensor:
        return cell.apply(z, Injection(*parts), neighbors)

    _, expected, expected_gates = torch.func.vjp(f, *injection)[1](adjoint)
    _, slope = cell.linearize(z, injection, neighbors)
    inner, messages = cell.injection_vjp(adjoint, slope)
    torch.testing.assert_close(inner, expected)
    gates = cell.gates_vjp(messages, cell.send(z), injection.gates, neighbors)
    torch.testing.assert_close(gates, expected_gates)


def test_reversing_twice_changes_nothing() -> None:
    injection, _, reverse = random_graph(8)
    assert torch.equal(reverse_gates(reverse_gates(injection.gates, reverse), reverse), injection.gates)


@pytest.mark.parametrize("contraction", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_bound_that_is_none_is_refused(contraction: float) -> None:
    with pytest.raises(ValueError, match="a fixed point is guaranteed for values between 0 and 1"):
        ContractiveCell(contraction, FeatureShape(N_CHANNELS, 0, 0))
