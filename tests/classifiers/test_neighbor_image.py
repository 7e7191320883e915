"""The image: blind to cell, frame and order; continuous where a list of neighbours jumps."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, make_supercell, molecule
from input_structures import STRUCTURES

from ase_andersonn.classifiers.features import neighbor_image as module
from ase_andersonn.classifiers.features.neighbor_image import (
    NodeNeighborImages,
    channel_names,
    join,
    node_neighbor_image,
)
from ase_andersonn.structures.elements import N_ELEMENTS, PROPERTIES, element_properties, group, period, valence

SMALL = {"cutoff": 4.0, "n_neighbors": 8, "dtype": torch.float64}


def image(atoms: Atoms | list[Atoms], **options: object) -> NodeNeighborImages:
    return node_neighbor_image(atoms, **(SMALL | options))  # type: ignore[arg-type]


def sorted_rows(values: torch.Tensor) -> np.ndarray:
    """The rows in an order that does not depend on theirs."""
    rows = values.flatten(1).numpy()
    return rows[np.argsort(rows @ np.random.default_rng(0).normal(size=rows.shape[1]), kind="stable")]


def perovskite() -> Atoms:
    """Five atoms of three elements in a skewed cell, no two alike."""
    scaled = [[0, 0, 0], [0.5, 0.5, 0.52], [0.5, 0.5, 0.03], [0.5, 0.02, 0.5], [0.04, 0.5, 0.5]]
    return Atoms("SrTiO3", scaled_positions=scaled, cell=[[3.9, 0, 0], [0.3, 3.9, 0], [0.1, -0.2, 4.0]], pbc=True)


def test_channels_are_named() -> None:
    found = image(molecule("CH4"), n_radial=7)
    assert found.values.shape == (5, 8, len(channel_names(7)))
    torch.testing.assert_close(found.values[..., 0], found.filled)


def test_neighbors_at_different_distances_have_a_column_each() -> None:
    chain = Atoms("HFOCl", positions=[[0, 0, 0], [1.5, 0, 0], [0, 0, -2.0], [0, 2.5, 0]])
    found = image(chain)
    torch.testing.assert_close(found.filled[0], torch.tensor([1.0, 1, 1, 0, 0, 0, 0, 0], dtype=torch.float64))
    names = channel_names()
    properties = found.values[0, :3, names.index("neighbor electronegativity") :][:, : len(PROPERTIES)]
    torch.testing.assert_close(properties, torch.from_numpy(element_properties()[[9, 8, 17]]))
    radial = found.values[0, 1, names.index("radial 0") : names.index("angle near 1")]
    centers = torch.linspace(0, 4.0, 12, dtype=torch.float64)
    torch.testing.assert_close(radial, torch.exp(-0.5 * ((2.0 - centers) / centers[1]) ** 2))
    cosines = found.values[0, :3, names.index("angle all 1")]  # to itself 1, to the others 0
    torch.testing.assert_close(cosines, torch.full((3,), 1 / 3, dtype=torch.float64))


def test_a_shell_shares_its_columns() -> None:
    found = image(bulk("Cu"), cutoff=6.0, n_neighbors=16)
    torch.testing.assert_close(found.filled, torch.ones_like(found.filled))
    torch.testing.assert_close(found.values[0, :12], found.values[0, :1].expand(12, -1))
    assert (found.values[0, 12] - found.values[0, 0]).abs().max() > 0.1


@pytest.mark.parametrize("name", ["bulk", "slab", "wire", "molecule", "skewed", "single atom", "isolated atoms"])
def test_frame_and_order_do_not_matter(name: str) -> None:
    atoms = STRUCTURES[name].copy()
    order = np.random.default_rng(3).permutation(len(atoms))
    turned = atoms[order]
    turned.rotate(37.0, (1.0, 2.0, 3.0), rotate_cell=True)
    turned.translate((3.3, -0.4, 9.1))
    expected = image(atoms)
    torch.testing.assert_close(image(turned).values, expected.values[order], rtol=1e-9, atol=1e-10)
    assert expected.values.isfinite().all()


def test_the_choice_of_cell_does_not_matter() -> None:
    """Primitive, skewed and repeated cells have the same set of rows."""
    atoms = perovskite()
    rows = sorted_rows(image(atoms).values)
    other = make_supercell(atoms, [[1, 1, 0], [0, 1, 0], [0, -1, 1]])
    np.testing.assert_allclose(sorted_rows(image(other).values), rows, atol=1e-10)
    repeated = image(atoms * (2, 2, 2)).values
    np.testing.assert_allclose(sorted_rows(repeated), np.repeat(rows, 8, 0), atol=1e-10)
    conventional, primitive = image(bulk("NaCl", "rocksalt", 5.64, cubic=True)), image(bulk("NaCl", "rocksalt", 5.64))
    expected = np.repeat(sorted_rows(primitive.values), 4, 0)
    np.testing.assert_allclose(sorted_rows(conventional.values), expected, atol=1e-10)


def largest_jump(path: list[Atoms]) -> float:
    rows = image(path, n_neighbors=4).values.unflatten(0, (len(path), -1))
    return float(rows.diff(dim=0).abs().max())


def star(*distances: float) -> Atoms:
    """An atom with others of different elements at these distances."""
    directions = np.random.default_rng(1).normal(size=(len(distances), 3))
    directions *= np.array(distances)[:, None] / np.linalg.norm(directions, axis=1, keepdims=True)
    return Atoms(["C", *["F", "Cs", "O", "Au", "Li", "Br"][: len(distances)]], positions=[[0, 0, 0], *directions])


@pytest.mark.parametrize(
    ("fixed", "start", "end"),
    [
        pytest.param((2.0,), 1.9, 2.1, id="two change places"),
        pytest.param((1.5, 2.0, 2.0, 2.5), 1.9, 2.1, id="one passes a shell"),
        pytest.param((1.5, 3.9), 3.8, 4.2, id="one leaves the cutoff"),
        pytest.param((), 3.8, 4.2, id="the last one leaves"),
        pytest.param((1.2, 1.6, 2.0, 2.4), 2.2, 2.7, id="one leaves the last column"),
        pytest.param((1.2, 1.6, 2.0, 2.4, 2.4), 2.3, 2.5, id="a shell at the last column"),
    ],
)
def test_image_is_continuous(fixed: tuple[float, ...], start: float, end: float) -> None:
    """Along a path whose steps are a tenth as long, the largest change is a tenth."""
    coarse, fine = (largest_jump([star(*fixed, r) for r in np.linspace(start, end, n + 1).tolist()]) for n in (40, 400))
    assert 0.0 < fine < 0.15 * coarse
    assert coarse < 0.8


def test_neighbors_that_are_not_looked_at_have_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = STRUCTURES["bulk"]
    for n_neighbors in (1, 4, 9):
        found = image(atoms, cutoff=6.0, n_neighbors=n_neighbors)
        with monkeypatch.context() as patch:
            patch.setattr(module, "_n_needed", lambda r, settings: r.shape[1])
            torch.testing.assert_close(found.values, image(atoms, cutoff=6.0, n_neighbors=n_neighbors).values)


def test_a_batch_is_its_structures() -> None:
    structures = [bulk("Si"), molecule("H2O"), Atoms("Ar"), perovskite()]
    batch, parts = image(structures), [image(atoms) for atoms in structures]
    joined = join(parts)
    for name in ("values", "filled", "numbers", "system"):
        torch.testing.assert_close(getattr(batch, name), getattr(joined, name), rtol=1e-12, atol=1e-13)
    assert joined.n_systems == batch.n_systems == 4
    assert batch.n_per_system.tolist() == [2, 3, 1, 5]
    assert batch.mask.any(1).tolist() == [True] * 5 + [False] + [True] * 5


def test_precision() -> None:
    found = image(bulk("Si"), dtype=torch.float32)
    assert found.values.dtype == found.filled.dtype == torch.float32
    torch.testing.assert_close(found.values, image(bulk("Si")).values.float(), rtol=0, atol=0)
    assert found.to(dtype=torch.float64).values.dtype == torch.float64


@pytest.mark.parametrize(
    ("atoms", "options", "message"),
    [
        (Atoms("X"), {}, "contains X; properties are known of elements 1 to 103"),
        (Atoms("Og"), {}, "contains Og"),
        (Atoms(), {}, "no atoms"),
        ([], {}, "no structures"),
        ([bulk("Si"), Atoms("H2", positions=[[0, 0, 0], [0, 0, np.nan]])], {}, "structure 1 of 2: positions"),
        (bulk("Si"), {"n_neighbors": 0}, "at least 1 column"),
        (bulk("Si"), {"n_radial": 1}, "2 radial functions"),
        (bulk("Si"), {"resolution": 0.0}, "resolution is 0.0 Å"),
        (bulk("Si"), {"cutoff": -1.0}, "cutoff is -1.0 Å"),
    ],
)
def test_errors_name_the_fault(atoms: Atoms, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        image(atoms, **options)


def test_periodic_table() -> None:
    assert [(period(z), group(z)) for z in (1, 2, 8, 11, 26, 57, 79, 86, 92)] == [
        (1, 1), (1, 18), (2, 16), (3, 1), (4, 8), (6, 3), (6, 11), (6, 18), (7, 3),
    ]  # fmt: skip
    assert valence(17) == (2, 5, 0, 0)
    assert valence(72) == (2, 0, 2, 14)
    table = element_properties()
    assert table.shape == (N_ELEMENTS + 1, len(PROPERTIES))
    np.testing.assert_allclose(table[1:].mean(0), 0.0, atol=1e-12)
    np.testing.assert_allclose(table[1:].std(0), 1.0, atol=1e-12)
