"""Solvers by class name: those of the package, and one of another package behind an entry point."""

from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from copper_frames import copper
from small_models import SIZES, small_model
from toy_solver import HeavyBall

from ase_andersonn import AndersoNN
from ase_andersonn.config import from_dict
from ase_andersonn.solvers import Anderson, Broyden, Picard, registry
from ase_andersonn.training import TrainConfig, train
from ase_andersonn.training.classification.config import ClassifierTrainConfig
from ase_andersonn.training.classification.trainer import build_model

NAMES = {"Anderson": Anderson, "Broyden": Broyden, "Picard": Picard}


@pytest.fixture
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    found = EntryPoints([EntryPoint("HeavyBall", "toy_solver", registry.GROUP)])
    monkeypatch.setattr(registry, "entry_points", lambda **wanted: found.select(**wanted))


def silicon() -> Atoms:
    atoms = bulk("Si", cubic=True)
    atoms.rattle(0.1, seed=0)
    return atoms


def test_every_solver_of_the_package_has_its_name() -> None:
    assert {name: type(registry.solver_named(name)) for name in registry.SOLVERS} == NAMES


@pytest.mark.usefixtures("_registered")
@pytest.mark.parametrize(("name", "tiles"), [*((name, None) for name in (*NAMES, "HeavyBall")), ("HeavyBall", "on")])
def test_all_solvers_find_the_same_energy(name: str, tiles: Any) -> None:
    """A solver of another package makes all iterations, also of a structure small enough for the fused path."""
    HeavyBall.n_steps = 0
    made: dict[str, Any] = {"dtype": "float64", "tol": 1e-12, "tiles": tiles, "compile": False}
    expected = AndersoNN(small_model(), **made)
    calc = AndersoNN(small_model(), **made, solver=name)
    atoms = silicon()
    forces, wanted = calc.get_forces(atoms), expected.get_forces(atoms)
    np.testing.assert_allclose(calc.get_potential_energy(), expected.get_potential_energy(), atol=1e-9)
    np.testing.assert_allclose(forces, wanted, atol=1e-5)
    assert (HeavyBall.n_steps > 0) == (name == "HeavyBall")


@pytest.mark.usefixtures("_registered")
def test_a_run_is_trained_with_a_solver_of_another_package(tmp_path: Path) -> None:
    write(tmp_path / "frames.extxyz", copper(8))
    losses = []
    for name in ("Anderson", "HeavyBall"):
        HeavyBall.n_steps = 0
        config = TrainConfig(
            train=(str(tmp_path / "frames.extxyz"),),
            output=str(tmp_path / name),
            model={**SIZES, "cutoff": 3.5},
            max_epochs=1,
            batch_atoms=16,
            dtype="float64",
            tolerance=1e-10,
            solver=name,
        )
        trainer = train(config)
        losses.append(trainer.position.best)
        assert (HeavyBall.n_steps > 0) == (name == "HeavyBall")
    assert losses[0] is not None
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("architecture", ["GraphClassifier", "ImageClassifier"])
def test_a_classifier_is_trained_with_the_solver_of_its_config(architecture: str, name: str) -> None:
    config = ClassifierTrainConfig(train=("a.csv",), output="run", architecture=architecture, solver=name)
    solver: Any = build_model(config).solver
    assert type(solver) is NAMES[name]


@pytest.mark.usefixtures("_registered")
@pytest.mark.parametrize("config", [TrainConfig, ClassifierTrainConfig])
def test_an_unknown_name_is_an_error_that_lists_all(config: Any) -> None:
    text = r"solver is 'Andersen'; known are Anderson, Broyden, HeavyBall, Picard; did you mean 'Anderson'\?"
    with pytest.raises(ValueError, match=text):
        AndersoNN(small_model(), solver="Andersen")
    with pytest.raises(ValueError, match=text):
        from_dict(config, {"train": ["a.xyz"], "output": "run", "solver": "Andersen"})


def test_models_with_a_solver_of_their_own_take_none() -> None:
    with pytest.raises(ValueError, match="a GridModel solves its tiles by Anderson acceleration"):
        AndersoNN("ising", solver="Picard")
