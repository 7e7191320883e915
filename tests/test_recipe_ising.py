"""The recipe of the Ising model, in small; and the packaged model."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ase_andersonn import AndersoNN, load_model
from ase_andersonn.lattice.spins import spin_lattice

RECIPE = Path(__file__).parents[1] / "data" / "recipes" / "ising"


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ising_make", RECIPE / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_energies(make: ModuleType) -> None:
    up = np.ones((1, 8, 8), np.int8)
    checkered = (2 * (np.indices((8, 8)).sum(0) % 2) - 1)[None].astype(np.int8)
    single = up.copy()
    single[0, 3, 3] = -1
    np.testing.assert_array_equal(make.ising_energy(np.concatenate([up, checkered, single])), [-128, 128, -120])


def test_counts_are_of_tiles(make: ModuleType) -> None:
    counts = make.tile_counts(np.ones((2, 8, 8), np.int8))
    assert counts.shape == (2, 512)
    assert counts[0, 511] == 64
    assert counts.sum() == 128


def test_the_recipe_makes_a_model(
    make: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(make, "SETS", {"train": (600, 8), "test": (50, 8), "test-128": (2, 128)})
    arguments = ["--run", str(tmp_path), "--output", str(tmp_path / "m.safetensors"), "--sweeps", "30", "--steps", "80"]
    make.main(arguments)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
    assert len(written) == 3
    model = load_model(tmp_path / "m.safetensors")
    assert model.card["parameters"] == 353
    assert model.card["test"]["8x8"]["energy_median_absolute_error_J"] < 0.01
    monkeypatch.setattr(make, "draw", None)
    make.main([*arguments[:-1], "1"])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")} == written


@pytest.mark.parametrize(("size", "limit"), [(8, 0.01), (128, 0.1)])
def test_the_packaged_model(make: ModuleType, size: int, limit: float) -> None:
    spins = make.draw(11, size, 20, np.random.default_rng(9))
    calc, off = AndersoNN("ising"), []
    for configuration, exact in zip(spins, make.ising_energy(spins), strict=True):
        atoms = spin_lattice("square", size, spins=configuration)
        off.append(abs(calc.get_potential_energy(atoms) - exact))
    assert np.median(off) <= limit
    assert sum(p.numel() for p in calc.model.parameters()) <= 353
