"""Gaussian images: against a sum over all images of all atoms, on every kind of cell."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from ase_andersonn.lattice.density_image import gaussian, gaussian_image

SIGMA, CUTOFF = 0.3, 1.5
CELLS: dict[str, Any] = {
    "square": [[4.0, 0, 0], [0, 5.0, 0]],
    "skewed": [[4.0, 0.5, 0], [1.7, 3.0, 0.4]],
    "small": [[1.1, 0, 0], [0.2, 0.9, 0]],
    "cubic": [[3.0, 0, 0], [0, 3.2, 0], [0, 0, 2.9]],
    "triclinic": [[3.0, 0.4, 0.2], [0.9, 2.8, 0.1], [0.3, -0.8, 2.6]],
}


def random_atoms(cell: torch.Tensor, n: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    places = 3 * torch.rand(n, len(cell), generator=generator, dtype=torch.float64) - 1  # also outside the cell
    height = torch.randn(n, 3, generator=generator, dtype=torch.float64) if len(cell) == 2 else 0
    normal = torch.linalg.cross(*cell) if len(cell) == 2 else torch.zeros(3, dtype=torch.float64)
    return places @ cell + (height * normal if len(cell) == 2 else 0), torch.arange(1.0, n + 1, dtype=torch.float64)


def direct(positions: Any, weights: Any, cell: Any, n_pixels: Any) -> torch.Tensor:
    """Every pixel, every atom, every periodic image within reach."""
    pixels = torch.tensor(np.indices(n_pixels).reshape(len(cell), -1).T / np.array(n_pixels))
    shifts = torch.tensor(list(itertools.product(range(-4, 5), repeat=len(cell))), dtype=torch.float64)
    places = (positions @ torch.linalg.pinv(cell))[:, None] + shifts
    image = torch.zeros(len(pixels), dtype=torch.float64)
    for k, pixel in enumerate(pixels):
        square = ((places - pixel) @ cell).square().sum(-1)
        image[k] = (weights[:, None] * gaussian(square, SIGMA, CUTOFF) * (square < CUTOFF**2)).sum()
    return image.view(*n_pixels)


@pytest.mark.parametrize("name", list(CELLS))
def test_the_image_is_the_sum_over_all_images(name: str) -> None:
    cell = torch.tensor(CELLS[name], dtype=torch.float64)
    n_pixels = (5, 4, 3)[: len(cell)]
    positions, weights = random_atoms(cell)
    found = gaussian_image(positions, weights, cell, n_pixels, [True] * len(cell), sigma=SIGMA, cutoff=CUTOFF)
    torch.testing.assert_close(found, direct(positions, weights, cell, n_pixels), rtol=1e-10, atol=1e-12)


def test_gaussians_are_gaussians_and_end_smoothly() -> None:
    r = torch.tensor([0.0, 0.1, 0.5, 1.19], dtype=torch.float64)
    torch.testing.assert_close(gaussian(r**2, SIGMA, CUTOFF), torch.exp(-(r**2) / (2 * SIGMA**2)))
    x = torch.tensor(1.5 - 1e-6, dtype=torch.float64, requires_grad=True)
    value = gaussian(x**2, SIGMA, CUTOFF)
    for _ in range(2):
        assert abs(value.item()) < 1e-9
        (value,) = torch.autograd.grad(value, x, create_graph=True)
    assert abs(value.item()) < 1e-4
    assert gaussian(torch.tensor([2.26, 9.0]), SIGMA, CUTOFF).tolist() == [0, 0]


def test_the_end_pixel_is_not_there_twice() -> None:
    """An atom on the first pixel: its neighbours on the ring see the same, and a repeated cell repeats the image."""
    cell = torch.tensor([[2.0, 0, 0], [0, 2.0, 0]], dtype=torch.float64)
    atom, one = torch.zeros(1, 3, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    image = gaussian_image(atom, one, cell, (8, 8), (True, True), sigma=0.2, cutoff=1.0)
    torch.testing.assert_close(image[1], image[-1])
    torch.testing.assert_close(image[:, 3], image[:, -3])
    assert image.max() == image[0, 0] == 1.0
    twice = torch.cat((atom, atom + cell[0]))
    doubled = cell * torch.tensor([[2.0], [1.0]], dtype=torch.float64)
    image2 = gaussian_image(twice, torch.ones(2).double(), doubled, (16, 8), (True, True), sigma=0.2, cutoff=1.0)
    torch.testing.assert_close(image2, torch.cat((image, image)))


def test_open_edges() -> None:
    cell = torch.tensor([[6.0, 0, 0], [0, 3.0, 0]], dtype=torch.float64)
    atom, one = torch.tensor([[3.0, 2.9, 0.7]], dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    image = gaussian_image(atom, one, cell, (12, 6), (False, True), sigma=SIGMA, cutoff=CUTOFF)
    torch.testing.assert_close(image, image.flip(0))  # pixels stand symmetrically around the middle
    for x in (1.4, 4.6, -3.0, 9.0):
        atom[0, 0] = x
        with pytest.raises(ValueError, match=r"closer than 1\.5 Å to an open edge"):
            gaussian_image(atom, one, cell, (12, 6), (False, True), sigma=SIGMA, cutoff=CUTOFF)


@pytest.mark.parametrize("name", list(CELLS))
def test_derivatives(name: str) -> None:
    cell = torch.tensor(CELLS[name], dtype=torch.float64, requires_grad=True)
    n_pixels = (5, 4, 3)[: len(cell)]
    positions, weights = random_atoms(cell.detach(), 2)
    target = torch.randn(n_pixels, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def overlap(positions: Any, weights: Any, cell: Any) -> torch.Tensor:
        rings = [True] * len(cell)
        return (target * gaussian_image(positions, weights, cell, n_pixels, rings, sigma=SIGMA, cutoff=CUTOFF)).sum()

    arguments = (positions.requires_grad_(), weights.requires_grad_(), cell)
    assert torch.autograd.gradcheck(overlap, arguments, eps=1e-6, atol=1e-6)
    assert torch.autograd.gradgradcheck(overlap, arguments, eps=1e-6, atol=1e-5)


def test_an_atom_on_a_pixel_has_finite_derivatives() -> None:
    cell = torch.eye(3, dtype=torch.float64) * 3
    atom = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    image = gaussian_image(atom, torch.ones(1).double(), cell, (6, 6, 6), [True] * 3, sigma=SIGMA, cutoff=CUTOFF)
    (slope,) = torch.autograd.grad(image.square().sum(), atom, create_graph=True)
    torch.testing.assert_close(slope, torch.zeros_like(slope))
    assert bool(torch.autograd.grad(slope.sum(), atom)[0].isfinite().all())


def test_many_atoms_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = torch.tensor(CELLS["cubic"], dtype=torch.float64)
    positions, weights = random_atoms(cell, 20)
    images = []
    for entries in (2**22, 1):
        monkeypatch.setattr("ase_andersonn.lattice.density_image.PAIRS_AT_ONCE", entries)
        images.append(gaussian_image(positions, weights, cell, (6, 6, 6), [True] * 3, sigma=SIGMA, cutoff=CUTOFF))
    torch.testing.assert_close(*images)
