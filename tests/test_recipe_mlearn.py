"""The recipe of the default model: conversion of the public JSON files, and a config that the trainer accepts."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.units import GPa
from pymatgen.core import Structure

from ase_andersonn.config import read_config
from ase_andersonn.training import TrainConfig, read_frames

RECIPE = Path(__file__).parents[1] / "data" / "recipes" / "mlearn-pbe"


@pytest.fixture(scope="module")
def prepare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mlearn_prepare", RECIPE / "prepare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def labelled(strain: float, *, shear: float = 0.0) -> Atoms:
    atoms = bulk("Cu", a=3.6, cubic=True)
    atoms.set_cell(atoms.cell @ (np.eye(3) * (1 + strain) + np.eye(3, k=1) * shear), scale_atoms=True)
    atoms.rattle(0.02, seed=1)
    atoms.calc = EMT()
    return atoms


def entry_of(atoms: Atoms, sign: float = -1.0) -> dict[str, Any]:
    """An entry as in the public files, VASP's units, order and sign."""
    xx, yy, zz, yz, xz, xy = sign * atoms.get_stress() / (0.1 * GPa)
    return {
        "structure": Structure.from_ase_atoms(Atoms(atoms)).as_dict(),
        "group": "Elastic",
        "description": "strained crystal",
        "num_atoms": len(atoms),
        "outputs": {
            "energy": atoms.get_potential_energy(),
            "forces": atoms.get_forces().tolist(),
            "virial_stress": [xx, yy, zz, xy, yz, xz],
        },
    }


def write_json(folder: Path, frames: list[dict[str, Any]]) -> None:
    (folder / "Cu").mkdir(parents=True)
    for name in ("training.json", "test.json"):
        (folder / "Cu" / name).write_text(json.dumps(frames))


def test_labels_survive(prepare: ModuleType, tmp_path: Path) -> None:
    frames = [labelled(s, shear=0.05) for s in (-0.05, 0.0, 0.05)]
    write_json(tmp_path / "json", [entry_of(atoms) for atoms in frames])
    prepare.main([str(tmp_path / "json"), "--output", str(tmp_path / "frames"), "--elements", "Cu"])
    for split in ("train", "test"):
        for given, found in zip(frames, read_frames([str(tmp_path / "frames" / f"Cu_{split}.extxyz")]), strict=True):
            assert found.info["group"] == "Elastic"
            assert found.get_potential_energy() == pytest.approx(given.get_potential_energy(), abs=1e-8)
            np.testing.assert_array_equal(found.numbers, given.numbers)
            assert found.pbc.all()
            np.testing.assert_allclose(
                found.get_distance(0, 1, mic=True), given.get_distance(0, 1, mic=True), atol=1e-7
            )
            np.testing.assert_allclose(found.get_forces(), given.get_forces(), atol=1e-7)
            np.testing.assert_allclose(found.get_stress(), given.get_stress(), atol=1e-9)


def test_stress_of_a_published_frame(prepare: ModuleType) -> None:
    # The first silicon frame of the data set; 1 eV/Å³ is 1602.18 kbar.
    virial = [-6.58094686, -9.63365488, -2.75897261, 9.08682588, -1.60618898, -5.41948494]
    expected = [0.0041075, 0.0060129, 0.0017220, 0.0010025, 0.0033826, -0.0056716]
    np.testing.assert_allclose(prepare.ase_stress(virial), expected, atol=1e-7)


def test_stress_can_be_left_out(prepare: ModuleType, tmp_path: Path) -> None:
    write_json(tmp_path / "json", [entry_of(labelled(0.0))])
    arguments = [str(tmp_path / "json"), "--output", str(tmp_path), "--elements", "Cu", "--no-stress", "Cu"]
    prepare.main(arguments)
    assert "stress" not in read_frames([str(tmp_path / "Cu_train.extxyz")])[0].calc.results


def test_wrong_sign_and_missing_forces_are_found(prepare: ModuleType) -> None:
    frames = [prepare.to_atoms(entry_of(labelled(s), sign=+1.0)) for s in (-0.05, 0.0, 0.05)]
    with pytest.raises(ValueError, match="another sign"):
        prepare.check_sign(frames)
    entry = entry_of(labelled(0.0))
    entry["outputs"]["forces"].pop()
    with pytest.raises(ValueError, match="atoms are 4"):
        prepare.to_atoms(entry)


def test_the_config_is_valid() -> None:
    config = read_config(TrainConfig, RECIPE / "config.yaml")
    assert config.train == ("frames/*_train.extxyz",)
    assert not Path(config.output).is_absolute()
