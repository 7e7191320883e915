"""Irreducible Cartesian tensors and their products."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from scipy.special import roots_legendre, sph_harm_y

from ase_andersonn.nn.cartesian_tensors import (
    RANK_MAX,
    Path,
    Product,
    basis,
    operator_norm,
    packed,
    paths,
    product_table,
    unpacked,
)
from ase_andersonn.nn.spherical_harmonics import harmonics

RANKS = range(RANK_MAX + 1)
ALL = paths(RANK_MAX)


def directions(n: int = 20, seed: int = 0) -> torch.Tensor:
    u = torch.from_numpy(np.random.default_rng(seed).normal(size=(n, 3)))
    return u / u.norm(dim=-1, keepdim=True)


def turns() -> list[np.ndarray]:
    """Rotations, and the same with a reflection."""
    rotations = Rotation.random(4, random_state=1).as_matrix()
    return [*rotations, *(-rotations)]


def turned(tensors: torch.Tensor, rank: int, turn: np.ndarray) -> torch.Tensor:
    """Every index of tensors [..., 3, …, 3] turned."""
    for _ in range(rank):  # the first index is turned and becomes the last
        tensors = torch.tensordot(tensors, torch.from_numpy(turn.T.copy()), ([-rank], [0]))
    return tensors


def matrix(rank: int, turn: np.ndarray) -> torch.Tensor:
    """What a turn does to packed numbers [2l + 1, 2l + 1], from the right."""
    return packed(turned(torch.from_numpy(basis(rank)), rank, turn), rank)


@pytest.mark.parametrize("rank", RANKS)
def test_the_basis_is_orthonormal_symmetric_and_traceless(rank: int) -> None:
    tensors = basis(rank)
    flat = tensors.reshape(2 * rank + 1, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(2 * rank + 1), atol=1e-13)
    for order in itertools.permutations(range(1, rank + 1)):
        np.testing.assert_allclose(tensors.transpose(0, *order), tensors, atol=1e-13)
    if rank >= 2:
        np.testing.assert_allclose(np.trace(tensors, axis1=1, axis2=2), 0.0, atol=1e-13)


@pytest.mark.parametrize("rank", RANKS)
def test_directions_have_the_harmonics_as_components(rank: int) -> None:
    u = directions()
    power = torch.ones(len(u), dtype=torch.float64)
    for _ in range(rank):
        power = power[..., None] * u.view(len(u), *(1,) * (power.ndim - 1), 3)
    found = packed(power, rank)
    length = math.sqrt(math.factorial(rank) / math.prod(range(1, 2 * rank, 2)))  # of the traceless part
    torch.testing.assert_close(found, length * harmonics(u, rank)[:, rank**2 :], rtol=0, atol=1e-13)


@pytest.mark.parametrize("rank", RANKS)
def test_packing_keeps_tensors_and_their_length(rank: int) -> None:
    t = torch.randn(5, 2 * rank + 1, dtype=torch.float64)
    tensors = unpacked(t, rank)
    torch.testing.assert_close(packed(tensors, rank), t, rtol=0, atol=1e-13)
    torch.testing.assert_close(tensors.reshape(5, -1).norm(dim=1), t.norm(dim=1))


@pytest.mark.parametrize("path", ALL)
def test_products_turn_with_their_factors(path: Path) -> None:
    x, y = (torch.randn(6, 2 * rank + 1, dtype=torch.float64) for rank in path[:2])
    table = torch.from_numpy(product_table(path))
    product = torch.einsum("ni,nj,ijk->nk", x, y, table)
    for turn in turns():
        one, two, three = (matrix(rank, turn) for rank in path)
        again = torch.einsum("ni,nj,ijk->nk", x @ one, y @ two, table)
        torch.testing.assert_close(again, product @ three, rtol=0, atol=1e-12)


@pytest.mark.parametrize("path", ALL)
def test_products_are_contractions_of_the_tensors(path: Path) -> None:
    """Up to a factor: contracted, then packed, which symmetrises and takes traces off."""
    first, second, third = path
    x, y = (torch.randn(4, 2 * rank + 1, dtype=torch.float64) for rank in (first, second))
    n = (first + second - third) // 2
    one, two = "abc"[:first], "abc"[:n] + "def"[: second - n]
    rest = "".join(i for i in one + two[n:] if i not in two[:n])
    contracted = torch.einsum(f"n{one},n{two}->n{rest}", unpacked(x, first), unpacked(y, second))
    expected, given = packed(contracted, third), torch.einsum("ni,nj,ijk->nk", x, y, torch.tensor(product_table(path)))
    factor = (given * expected).sum() / expected.square().sum()
    assert factor > 0.1
    torch.testing.assert_close(given, factor * expected, rtol=0, atol=1e-12)


def real_harmonics(theta: np.ndarray, phi: np.ndarray) -> dict[tuple[int, int], np.ndarray]:
    """Real spherical harmonics of SciPy's complex ones, by degree and order."""
    found = {}
    for degree in RANKS:
        for order in range(-degree, degree + 1):
            value = sph_harm_y(degree, abs(order), theta, phi) * (-1) ** order
            part = value.real if order >= 0 else value.imag
            found[degree, order] = part * (math.sqrt(2.0) if order else 1.0)
    return found


def test_tables_are_those_of_integrals_of_three_spherical_harmonics() -> None:
    """Gaunt's integrals by quadrature, with harmonics that share nothing with the package's but the definition."""
    nodes, node_weights = roots_legendre(8)
    phi = np.linspace(0.0, 2.0 * np.pi, 16, endpoint=False)
    theta, phi = (grid.ravel() for grid in np.meshgrid(np.arccos(nodes), phi, indexing="ij"))
    weights = np.repeat(node_weights, 16) * (2.0 * np.pi / 16)
    y = real_harmonics(theta, phi)
    u = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], -1)
    ours = harmonics(torch.from_numpy(u), RANK_MAX).numpy()
    orders: dict[int, list[int]] = {}
    for degree in RANKS:  # which of SciPy's is the same function as each of ours
        scale = math.sqrt((2 * degree + 1) / (4.0 * np.pi))
        for own in ours[:, degree**2 : (degree + 1) ** 2].T:
            (order,) = (m for m in range(-degree, degree + 1) if np.allclose(y[degree, m], scale * own, atol=1e-10))
            orders.setdefault(degree, []).append(order)
    for path in ALL:
        one, two, three = (np.stack([y[rank, m] for m in orders[rank]]) for rank in path)
        gaunt = np.einsum("in,jn,kn,n->ijk", one, two, three, weights)
        table = product_table(path)
        factor = (gaunt * table).sum() / (gaunt * gaunt).sum()
        np.testing.assert_allclose(table, factor * gaunt, atol=1e-11)
        assert factor > 0.0


@pytest.mark.parametrize("path", ALL)
def test_tensors_of_one_direction_give_that_of_the_direction(path: Path) -> None:
    y = harmonics(directions(), RANK_MAX)
    one, two, three = (y[:, rank**2 : (rank + 1) ** 2] for rank in path)
    found = torch.einsum("ni,nj,ijk->nk", one, two, torch.from_numpy(product_table(path)))
    torch.testing.assert_close(found, three, rtol=0, atol=1e-12)


@pytest.mark.parametrize("path", ALL)
def test_the_operator_norm_is_never_exceeded_and_reached(path: Path) -> None:
    u, bound = directions(5), operator_norm(path)
    y = harmonics(u, path[1])[:, path[1] ** 2 :]
    operators = torch.einsum("ijk,nj->nik", torch.from_numpy(product_table(path)), y)
    norms = torch.linalg.matrix_norm(operators, 2)
    torch.testing.assert_close(norms, torch.full_like(norms, bound), rtol=1e-12, atol=0)
    assert bound >= 1.0 - 1e-12


@pytest.mark.parametrize("l_max", RANKS)
def test_weighted_products_are_sums_over_the_paths(l_max: int) -> None:
    product, size = Product(l_max), (l_max + 1) ** 2
    x, y = (torch.randn(7, size, 3, dtype=torch.float64) for _ in range(2))
    weights = torch.randn(7, len(product.paths), 3, dtype=torch.float64)
    expected = torch.zeros(7, size, 3, dtype=torch.float64)
    for index, (first, second, third) in enumerate(product.paths):
        table = torch.from_numpy(product_table((first, second, third)))
        one, two = x[:, first**2 : (first + 1) ** 2], y[:, second**2 : (second + 1) ** 2]
        part = torch.einsum("nic,njc,ijk->nkc", one, two, table) * weights[:, index, None]
        expected[:, third**2 : (third + 1) ** 2] += part
    x, y, weights, expected = (tensor.transpose(1, 2) for tensor in (x, y, weights, expected))
    torch.testing.assert_close(product(x, y, weights), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(product(x, y, weights[0]), product(x, y, weights[:1].expand(7, -1, -1)))


def test_the_number_of_paths_and_what_there_is_none_of() -> None:
    assert [len(paths(l_max)) for l_max in RANKS] == [1, 4, 11, 23]
    assert (1, 1, 1) not in ALL  # a cross product, which a reflection leaves as it is
    for l_max in (-1, RANK_MAX + 1):
        with pytest.raises(ValueError, match="ranks 0 to 3"):
            paths(l_max)
