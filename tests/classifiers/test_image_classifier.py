"""The image classifier: its symmetries, its contraction, its fixed point and gradients, its files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, make_supercell, molecule
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ase_andersonn.checkpoints.checkpoint import load_classifier, save_model
from ase_andersonn.classifiers.features.neighbor_image import NodeNeighborImages
from ase_andersonn.classifiers.image_classifier import ImageClassifier, ImageClassifierConfig
from ase_andersonn.classifiers.layers.convolution_cell import ImageCell, apply_image_cell, convolution_norm, convolve
from ase_andersonn.classifiers.layers.detail_preserving_pooling import KINDS
from ase_andersonn.config import from_dict, to_dict
from ase_andersonn.labels import POLARITY
from ase_andersonn.solvers import Picard

SMALL = ImageClassifierConfig(
    cutoff=4.5, n_neighbors=8, n_radial=4, n_channels=4, n_hidden=8, n_pooled=8, n_heads=2, n_features=6,
    tolerance=1e-9, training_tolerance=1e-10,
)  # fmt: skip


def salts() -> list[Atoms]:
    """Primitive cells of a few compounds."""
    return [bulk("NaCl", "rocksalt", 5.64), bulk("GaAs", "zincblende", 5.65), bulk("CsCl", "cesiumchloride", 4.12)]


def made(config: ImageClassifierConfig = SMALL, **options: Any) -> ImageClassifier:
    torch.manual_seed(3)
    model = ImageClassifier(config, **options)
    model.calibrate([model.sample(atoms) for atoms in salts()])
    with torch.no_grad():
        model.head.weight *= 30.0  # or no structure would differ much from another
    return model.double().eval()


@pytest.fixture
def model() -> ImageClassifier:
    return made()


def logits(model: ImageClassifier, *structures: Atoms) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(model.prepare(structures))
    return found


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# One crystal, one answer


@pytest.mark.parametrize("atoms", salts(), ids=lambda a: str(a.symbols))
def test_one_crystal_has_one_answer(model: ImageClassifier, atoms: Atoms) -> None:
    rng = np.random.default_rng(0)
    atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
    turned = atoms.copy()
    turned.rotate(37.0, (1.0, 2.0, 3.0), rotate_cell=True)
    moved = atoms.copy()
    moved.positions += rng.normal(size=3)
    conventional = make_supercell(atoms, [[-1, 1, 1], [1, -1, 1], [1, 1, -1]])
    supercell = atoms.repeat(2)
    shuffled = supercell[rng.permutation(len(supercell))]
    expected = logits(model, atoms)[0]
    for other in (turned, moved, conventional, supercell, shuffled):
        torch.testing.assert_close(logits(model, other)[0], expected, rtol=1e-7, atol=1e-8)
    assert (logits(model, bulk("Cu"))[0] - expected).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_cells_and_batches_agree_for_every_pooling(kind: str) -> None:
    model = made(replace(SMALL, pooling=kind))  # type: ignore[arg-type]
    structures = [*salts(), molecule("CH3CH2OH"), Atoms("Ar")]
    together = logits(model, *structures)
    assert together.shape == (5, 3)
    assert together.isfinite().all()
    alone = torch.cat([logits(model, atoms) for atoms in structures])
    torch.testing.assert_close(together, alone, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(logits(model, structures[0] * (2, 2, 2))[0], alone[0], rtol=1e-7, atol=1e-8)


def test_logits_are_continuous(model: ImageClassifier) -> None:
    """An atom moves through a shell of others, and out of the cutoff: ten times the steps, a tenth of the change."""
    positions = [[0, 0, 0], [1.5, 0, 0], [0, 2.0, 0], [0, 0, 2.0], [0, 0, -3.0]]
    for start, end in ((1.85, 2.05), (4.3, 4.6)):
        jumps = []
        for n in (20, 200):
            path = [Atoms("CFOBrCs", positions) for _ in range(n + 1)]
            for atoms, x in zip(path, np.linspace(start, end, n + 1), strict=True):
                atoms.positions[1, 0] = x
            jumps.append(float(logits(model, *path).diff(dim=0).abs().max()))
        assert 0 < jumps[1] < 0.2 * jumps[0]


# The cell


def random_cell(seed: int, size: float = 1.0, contraction: float = 0.8) -> ImageCell:
    cell = ImageCell(3, 5, 3, contraction).double()
    with torch.no_grad():
        for k, parameter in enumerate(cell.parameters()):
            parameter.copy_(size * randn(*parameter.shape, seed=seed + k))
    return cell.requires_grad_(False)


def inputs(seed: int, n_neighbors: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    u, v, gates = randn(3, 2, n_neighbors, 3, seed=seed)
    return u, 3 * v, (5 * gates).sigmoid()


@given(st.integers(0, 2**31), st.floats(0.01, 100.0), st.floats(0.01, 100.0), st.sampled_from([0.3, 0.7, 0.95]))
def test_cell_is_a_contraction(seed: int, size: float, distance: float, contraction: float) -> None:
    weights, injection = random_cell(seed, size, contraction).weights(), inputs(seed)
    z = distance * randn(2, 5, 3, seed=seed)
    y = z + distance * randn(2, 5, 3, seed=seed + 1)
    images = [apply_image_cell(x, *injection, *weights) for x in (z, y)]
    assert (images[0] - images[1]).norm() <= contraction * (z - y).norm() * (1 + 1e-12)


@given(st.integers(0, 2**31), st.integers(8, 16), st.sampled_from([1, 3, 5]))
def test_norm_of_the_convolution_is_bounded_closely(seed: int, n_neighbors: int, size: int) -> None:
    """Against the convolution as one matrix."""
    kernel = randn(3, 3 * size, seed=seed)
    eye = torch.eye(3 * n_neighbors, dtype=torch.float64).view(-1, n_neighbors, 3)
    exact = float(torch.linalg.matrix_norm(convolve(eye, kernel).flatten(1), 2))
    bound = float(convolution_norm(kernel, n_neighbors))
    assert exact <= bound * (1 + 1e-12)
    assert bound <= exact * (1.0 + 1e-12 if size == 1 else 2.0)


def test_bound_is_nearly_reached() -> None:
    """The norms are not held smaller than they need to be: the cell before training, on a long constant row."""
    cell = ImageCell(3, 400, 3, 0.8).double().requires_grad_(False)
    weights = cell.weights()
    z, zero = torch.full((1, 400, 3), 1e-6, dtype=torch.float64), torch.zeros(1, 400, 3, dtype=torch.float64)
    found = apply_image_cell(z, zero, zero, zero + 1.0, *weights)
    assert float(found.norm() / z.norm()) == pytest.approx(0.8, rel=3e-3)


def test_convolution_is_that_of_torch() -> None:
    z, kernel = randn(2, 7, 3), randn(3, 15)
    weight = kernel.unflatten(1, (5, 3)).movedim(1, -1)
    expected = torch.nn.functional.conv1d(z.transpose(1, 2), weight, padding=2).transpose(1, 2)
    torch.testing.assert_close(convolve(z, kernel), expected)


# The fixed point


def test_anderson_and_forward_iteration_find_the_same(model: ImageClassifier) -> None:
    structures = [*salts(), molecule("CH3CH2OH")]
    expected = logits(model, *structures)
    accelerated = model.statistics
    model.solver = Picard()
    torch.testing.assert_close(logits(model, *structures), expected, rtol=1e-6, atol=1e-7)
    assert accelerated is not None
    assert model.statistics is not None
    assert bool(accelerated.converged.all())
    assert bool(model.statistics.converged.all())
    assert accelerated.steps.shape == (4,)
    assert accelerated.evaluations <= model.statistics.evaluations


def test_solver_argument() -> None:
    assert made(solver=Picard()).solver == Picard()


def unrolled(model: ImageClassifier, batch: NodeNeighborImages) -> Tensor:
    """The fixed point by iteration, differentiable step by step."""
    injection, weights = model.encode(batch.values), model.cell.weights()
    z = injection.u
    for _ in range(150):
        z = apply_image_cell(z, *injection, *weights)
    return z


@pytest.mark.parametrize("kind", ["dpp-lite", "dpp-full"])
def test_weight_gradient_is_that_of_the_unrolled_iteration(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(replace(SMALL, pooling=kind, dropout=0.0)).train()  # type: ignore[arg-type]
    batch, target = model.prepare(salts()), torch.tensor([0, 1, 2])
    parameters = [p for name, p in model.named_parameters() if not name.startswith("value_head")]

    def gradients() -> tuple[Tensor, ...]:
        return torch.autograd.grad(torch.nn.functional.cross_entropy(model(batch), target), parameters)

    found = gradients()
    assert model.adjoint_statistics is not None
    assert bool(model.adjoint_statistics.converged.all())
    with monkeypatch.context() as patch:
        patch.setattr(model, "equilibrium", lambda batch: unrolled(model, batch))
        expected = gradients()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
        assert one.abs().max() > 0


def test_it_learns() -> None:
    model = made(replace(SMALL, training_tolerance=1e-3, dropout=0.0)).train()
    batch, target = model.prepare(salts()), torch.tensor([0, 1, 2])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(25):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(batch), target)
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1


# Files and errors


def test_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ImageClassifier(replace(SMALL, labels=POLARITY)).eval()
    save_model(model, tmp_path / "m.safetensors")
    again = load_classifier(tmp_path / "m.safetensors")
    assert again.config == model.config
    torch.testing.assert_close(again(again.prepare(salts())), model(model.prepare(salts())), rtol=0, atol=0)
    assert from_dict(ImageClassifierConfig, to_dict(SMALL)) == SMALL


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cutoff": 0.0}, "cutoff is 0.0 Å"),
        ({"resolution": float("nan")}, "resolution is nan Å"),
        ({"n_channels": 0}, "n_channels is 0"),
        ({"pool": 3}, "a multiple of pool, 3"),
        ({"n_pooled": 9}, "a multiple of n_heads, 2"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"tolerance": 0.0}, "give positive ones"),
    ],
)
def test_configs_that_make_no_model(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)


def test_cells_that_are_none() -> None:
    with pytest.raises(ValueError, match="contraction is 1"):
        ImageClassifier(replace(SMALL, contraction=1.0))
    with pytest.raises(ValueError, match="4 columns; the number has to be odd"):
        ImageClassifier(replace(SMALL, kernel_size=4))
    with pytest.raises(ValueError, match="'median'; allowed are"):
        ImageClassifier(replace(SMALL, pooling="median"))  # type: ignore[arg-type]
