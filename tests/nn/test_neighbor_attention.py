"""Attention among neighbours, compared with the sum over pairs of neighbours that it stands for."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ase_andersonn.nn.blocks import silu
from ase_andersonn.nn.neighbor_attention import NeighborAttention, Neighborhood
from ase_andersonn.nn.radial import bessel, distances, envelope

CUTOFF, L_MAX, N_SPECIES = 4.0, 4, 3
seeds = st.integers(0, 2**31)
Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def attention(seed: int = 0, n_edge: int = 6, n_token: int = 10, **choices: Any) -> NeighborAttention:
    sizes: dict[str, Any] = {"n_radial": 5, "l_max": L_MAX, "n_edge": n_edge, "n_token": n_token, "n_heads": 2}
    sizes |= choices
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        module = NeighborAttention(n_species=N_SPECIES, cutoff=CUTOFF, n_channels=7, **sizes)
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.double().requires_grad_(False)


def neighborhoods(seed: int = 0, n_atoms: int = 5, n_neighbors: int = 9) -> Inputs:
    """Vectors, species, species of the neighbours, mask; some beyond the cutoff, some padded, one atom without any."""
    generator = torch.Generator().manual_seed(seed)
    vectors = 2.0 * torch.randn(n_atoms, n_neighbors, 3, dtype=torch.float64, generator=generator)
    count = torch.randint(1, n_neighbors + 1, (n_atoms,), generator=generator)
    count[0] = 0
    mask = torch.arange(n_neighbors) < count[:, None]
    vectors = torch.where(mask[..., None], vectors, 0.0)
    species = torch.randint(N_SPECIES, (n_atoms,), generator=generator)
    return vectors, species, torch.randint(N_SPECIES, (n_atoms, n_neighbors), generator=generator), mask


def run(module: NeighborAttention, inputs: Inputs) -> Neighborhood:
    vectors, species, neighbor_species, mask = inputs
    r = distances(vectors, mask)
    result: Neighborhood = module(r, vectors / r[..., None], species, neighbor_species, mask)
    return result


def legendre(x: torch.Tensor, l_max: int) -> torch.Tensor:
    """`P_l(x)` for l = 0 … l_max [..., l_max + 1], by Bonnet's recurrence."""
    values = [torch.ones_like(x), x]
    for degree in range(1, l_max):
        values.append(((2 * degree + 1) * x * values[-1] - degree * values[-2]) / (degree + 1))
    return torch.stack(values[: l_max + 1], -1)


def pairwise(module: NeighborAttention, inputs: Inputs) -> Neighborhood:
    """`token_j = silu(W (q_j Σ_k α_k v_k Σ_l b_l P_l(cos θ_jk)) + D x_j)`, neighbour by neighbour, atom by atom."""
    vectors, species, neighbor_species, mask = inputs
    r = distances(vectors, mask)
    radial = bessel(r, CUTOFF, module.n_radial)
    x = radial @ module.radial.weight
    x = silu(x + module.center[species][:, None] + module.other[neighbor_species])
    cosine = torch.einsum("ijx,ikx->ijk", vectors / r[..., None], vectors / r[..., None])
    polynomials = legendre(cosine, module.l_max)
    f = torch.where(mask, envelope(r, CUTOFF), 0.0)[..., None]
    e = f * (2 * torch.tanh(module.score(x))).exp()
    total = e.sum(1)
    alpha = e / (1 + total)[:, None]
    n_edge, n_token = x.shape[-1], module.angular.shape[1]
    head_of_edge = torch.arange(n_edge) * module.n_heads // n_edge
    head_of_token = torch.arange(n_token) * module.n_heads // n_token
    value = radial @ module.value.weight * module.factor[neighbor_species] if module.separable else module.value(x)
    weighted = alpha[..., head_of_edge] * value
    wide = weighted[..., torch.arange(n_token) % n_edge]
    attended = torch.einsum("ijkl,lc,ikc->ijc", polynomials, module.angular, wide)
    token = silu(module.attended(module.query(x) * attended) + module.direct(x))
    pooled = (alpha[..., head_of_token] * token).sum(1)
    others = [weighted.roll(k, -1) for k in range(module.n_pairs)]
    spectra = [torch.einsum("ijc,ijkl,ikc->ilc", weighted, polynomials, other) for other in others]
    weight = f * (2 * torch.tanh(module.weight(token))).exp()
    gates = module.gate(token).tanh() * weight / (1 + weight.sum(1, keepdim=True))
    return Neighborhood(torch.cat([pooled, total.log1p(), torch.cat(spectra, -1).flatten(1)], -1), gates)


def same(a: Neighborhood, b: Neighborhood, tol: float = 1e-12) -> None:
    torch.testing.assert_close(a.features, b.features, rtol=tol, atol=tol)
    torch.testing.assert_close(a.gates, b.gates, rtol=tol, atol=tol)


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize(("n_edge", "n_token", "n_pairs"), [(6, 10, 2), (8, 8, 5), (6, 4, 1)])
def test_linear_attention_is_the_sum_over_pairs_of_neighbors(
    n_edge: int, n_token: int, n_pairs: int, separable: bool
) -> None:
    module, inputs = attention(1, n_edge, n_token, n_pairs=n_pairs, separable=separable), neighborhoods(2)
    same(run(module, inputs), pairwise(module, inputs))


def test_derivatives_of_linear_attention_are_those_of_the_sum() -> None:
    module, (vectors, *rest) = attention(1), neighborhoods(3)

    def slope(function: Any) -> torch.Tensor:
        d = vectors.clone().requires_grad_()
        features, gates = function(d)
        (gradient,) = torch.autograd.grad((features * 0.3).sin().sum() + (gates * gates).sum(), d)
        return gradient

    expected = slope(lambda d: pairwise(module, (d, *rest)))
    torch.testing.assert_close(slope(lambda d: run(module, (d, *rest))), expected, rtol=1e-11, atol=1e-11)


@given(seeds, st.floats(0.01, 30.0))
def test_gates_sum_to_less_than_one(seed: int, size: float) -> None:
    """`Σ_k max_c |gates| ≤ 1`, whatever the weights and the geometry."""
    module = attention(seed)
    for parameter in module.parameters():
        parameter.mul_(size)
    gates = run(module, neighborhoods(seed, n_neighbors=30)).gates
    assert float(gates.abs().amax(-1).sum(1).max()) <= 1.0


def test_the_bispectrum_of_the_density_stands_behind_the_other_features() -> None:
    module, (vectors, *rest) = attention(1, n_bispectrum=3, separable=True), neighborhoods(2)
    features, found = run(module, (vectors, *rest)).features, module.bispectrum
    assert found is not None
    assert features.shape[1] == module.n_features
    species, neighbor_species, mask = rest
    r = distances(vectors, mask)
    environment = module.environment(r, vectors / r[..., None], module.pair_species(species, neighbor_species), mask)
    torch.testing.assert_close(features[:, -found.n_features :], found(environment.density))


def test_order_of_the_neighbors_does_not_matter() -> None:
    module, (vectors, species, other, mask) = attention(), neighborhoods(4)
    order = torch.randperm(vectors.shape[1], generator=torch.Generator().manual_seed(0))
    straight = run(module, (vectors, species, other, mask))
    shuffled = run(module, (vectors[:, order], species, other[:, order], mask[:, order]))
    same(Neighborhood(straight.features, straight.gates[:, order]), shuffled)


def test_rotations_and_reflections_do_not_matter() -> None:
    module, (vectors, *rest) = attention(), neighborhoods(5)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    for matrix in (rotation, -rotation):
        same(run(module, (vectors, *rest)), run(module, (vectors @ matrix, *rest)), 1e-11)


def test_neighbors_beyond_the_cutoff_and_padded_places_do_not_matter() -> None:
    module, (vectors, species, other, mask) = attention(), neighborhoods(6)
    inside = mask & (vectors.norm(dim=-1) < CUTOFF)
    expected = run(module, (vectors, species, other, mask))
    assert bool((expected.gates[~inside] == 0).all())
    same(expected, run(module, (torch.where(inside[..., None], vectors, 0.0), species, other, inside)))
    wide = torch.cat([vectors, torch.zeros(len(vectors), 3, 3)], 1)
    more, none = torch.cat([other, other[:, :3]], 1), torch.zeros(len(mask), 3, dtype=torch.bool)
    padded = run(module, (wide, species, more, torch.cat([mask, none], 1)))
    same(expected, Neighborhood(padded.features, padded.gates[:, : mask.shape[1]]))


def test_padded_places_have_no_gradient() -> None:
    module, (vectors, *rest) = attention(), neighborhoods(7)
    d = vectors.requires_grad_()
    features, gates = run(module, (d, *rest))
    (gradient,) = torch.autograd.grad(features.sum() + gates.sum(), d)
    assert bool((gradient[~rest[-1]] == 0).all())
    assert bool(torch.isfinite(gradient).all())


def test_an_atom_without_neighbors_has_features_of_its_own() -> None:
    module = attention()
    features, gates = run(module, neighborhoods(8))
    assert bool((features[0] == 0).all())
    assert bool((gates[0] == 0).all())


def test_a_neighbor_crosses_the_cutoff_without_a_jump() -> None:
    """Value and first two derivatives in its distance are the same on both sides."""
    module = attention(2)
    direction = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    vectors, species, other, _ = neighborhoods(9, n_atoms=1, n_neighbors=4)
    mask = torch.ones(1, 4, dtype=torch.bool)
    vectors = torch.randn(1, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def values(r: torch.Tensor) -> torch.Tensor:
        moved = torch.cat([vectors[:, :3], (r * direction)[None, None]], 1)
        features, gates = run(module, (moved, species, other, mask))
        return torch.cat([features.flatten(), gates.flatten()])

    def derivatives(r: float) -> list[torch.Tensor]:
        x = torch.tensor(r, dtype=torch.float64)
        first = torch.func.jacfwd(values)
        return [values(x), first(x), torch.func.jacfwd(first)(x)]

    for inside, outside in zip(derivatives(CUTOFF - 1e-9), derivatives(CUTOFF + 1e-9), strict=True):
        torch.testing.assert_close(inside, outside, rtol=0, atol=1e-6)
