"""Messages along bonds: of bounded norm, turning with the structure, and their own transposes by the reversed gates."""

import numpy as np
import pytest
import torch
from bonds import RANKS, directions, random_bonds, shape_of
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ase_andersonn.nn.irreps import dim, join, split
from ase_andersonn.nn.messages import FeatureShape, aggregate
from ase_andersonn.nn.spherical_harmonics import harmonics

seeds = st.integers(0, 2**31)


def rows(shape: FeatureShape, n: int, seed: int) -> torch.Tensor:
    size = dim(shape.n_sent, shape.n_tensors, shape.l_max)
    return torch.randn(n, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rank", RANKS)
@given(seed=seeds)
def test_no_message_is_longer_than_what_is_sent(rank: int, seed: int) -> None:
    shape = shape_of(rank)
    gates = random_bonds(shape, directions(4, 3, seed=seed), seed)
    sent = rows(shape, 5, seed)
    neighbors = torch.randint(5, (4, 3), generator=torch.Generator().manual_seed(seed))
    assert aggregate(gates, sent, neighbors, shape).norm(dim=1).max() <= sent.norm(dim=1).max() * (1 + 1e-12)


@pytest.mark.parametrize("rank", RANKS[1:])
def test_the_bound_is_reached(rank: int) -> None:
    """What stands along the bond, and is read and emitted as it stands, keeps its length."""
    shape = FeatureShape(1, 1, rank)
    u = directions(1, 1, seed=3)
    even = torch.full((rank + 1,), (rank + 1) ** -0.5, dtype=torch.float64)
    y = harmonics(u, rank)[..., 1:]
    coefficients = torch.cat([torch.zeros(1 + rank, dtype=torch.float64), even, even])
    gates = torch.cat([coefficients.expand(1, 1, -1), y], -1)
    along = torch.cat([torch.tensor([0.0, 1.0], dtype=torch.float64), y[0, 0]])[None]
    received = aggregate(gates, along, torch.zeros(1, 1, dtype=torch.int64), shape)
    torch.testing.assert_close(received, along)


@pytest.mark.parametrize("rank", RANKS)
def test_messages_turn_with_the_structure(rank: int) -> None:
    """For rotations and reflections, by the harmonics' own matrices."""
    shape, n = shape_of(rank), 6
    u, sent, neighbors = directions(n, 4, seed=1), rows(shape, n, 2), torch.randint(n, (n, 4))
    gates = random_bonds(shape, u, 5)
    for turn in (Rotation.random(random_state=0).as_matrix(), -Rotation.random(random_state=1).as_matrix()):
        matrix = torch.from_numpy(turn)
        after = torch.cat([gates[..., : shape.n_coefficients], harmonics(u @ matrix.T, rank)[..., 1:]], -1)
        received = aggregate(after, turned(sent, shape, matrix), neighbors, shape)
        expected = turned(aggregate(gates, sent, neighbors, shape), shape, matrix)
        torch.testing.assert_close(received, expected, rtol=0, atol=1e-12)


def turned(row: torch.Tensor, shape: FeatureShape, matrix: torch.Tensor) -> torch.Tensor:
    """Rows with all their tensors turned."""
    scalars, *tensors = split(row, shape.n_sent, shape.l_max)
    u = directions(40, seed=9)
    parts = [scalars]
    for rank, tensor in enumerate(tensors, 1):
        before, after = (harmonics(d, rank)[:, rank**2 :] for d in (u, u @ matrix.T))
        own = torch.from_numpy(np.linalg.lstsq(before.numpy(), after.numpy(), rcond=None)[0])
        parts.append(own.T @ tensor)
    return join(parts)


@pytest.mark.parametrize("rank", RANKS)
def test_transposed_it_is_the_same_sum_with_the_gates_seen_from_the_other_end(rank: int) -> None:
    """`⟨g, A h⟩ = ⟨Aᵀ g, h⟩` for the ring 0–1–2–0, where place 0 is the next atom and place 1 the one before."""
    shape = shape_of(rank)
    neighbors = torch.tensor([[1, 2], [2, 0], [0, 1]])
    gates = random_bonds(shape, directions(3, 2, seed=6), 7)
    reversed_gates = torch.empty_like(gates)
    for i in range(3):
        for place in range(2):
            reversed_gates[neighbors[i, place], 1 - place] = gates[i, place]
    sent, given = rows(shape, 3, 8), rows(shape, 3, 9)
    there = (given * aggregate(gates, sent, neighbors, shape)).sum()
    back = (sent * aggregate(reversed_gates, given, neighbors, shape, transposed=True)).sum()
    torch.testing.assert_close(there, back)


def test_messages_by_hand() -> None:
    """The formula of the file, bond by bond, for one channel and rank 2."""
    shape, n = FeatureShape(2, 1, 2), 4
    u, sent, neighbors = directions(n, 3, seed=1), rows(shape, n, 2), torch.randint(n, (n, 3))
    gates = random_bonds(shape, u, 3)
    received = aggregate(gates, sent, neighbors, shape)
    a, w, e, r, y = gates.split([2, 2, 3, 3, 8], -1)
    for i in range(n):
        plain, other, vector, tensor = torch.zeros(2), 0.0, torch.zeros(3), torch.zeros(5)
        for k in range(3):
            h = sent[neighbors[i, k]]
            y1, y2 = y[i, k, :3], y[i, k, 3:]
            p = r[i, k, 0] * h[2] + r[i, k, 1] * y1 @ h[3:6] + r[i, k, 2] * y2 @ h[6:]
            plain = plain + a[i, k] * h[:2]
            other = other + e[i, k, 0] * p
            vector = vector + w[i, k, 0] * h[3:6] + e[i, k, 1] * y1 * p
            tensor = tensor + w[i, k, 1] * h[6:] + e[i, k, 2] * y2 * p
        torch.testing.assert_close(received[i], torch.cat([plain, other[None], vector, tensor]))
