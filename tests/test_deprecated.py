"""Names of version 0.1.0 go on working, and say what they are called now."""

from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from ase_andersonn import AndersoNN, MetropolisMC, classifier, tiles
from ase_andersonn.deprecated import DIAGNOSTICS, RenamedKeys
from ase_andersonn.mc import Displacement, SpinFlip, Trial


class Old(Calculator):
    """The local energy protocol under its earlier names: every atom is bound to the origin of its own cell."""

    implemented_properties = ["energy"]  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.asked: list[int] = []

    def calculate(self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        self.results = {"energy": float(np.square(self.atoms.positions).sum())}  # type: ignore[union-attr]

    def propose(self, atoms: Atoms, changed: np.ndarray[Any, Any]) -> float:
        self.asked.append(len(changed))
        return float(np.square(atoms.positions).sum())

    def settle(self, accepted: bool) -> None:
        pass


def test_a_calculator_with_the_earlier_protocol_is_local() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.calc = Old()
    with pytest.warns(DeprecationWarning, match=r"Old\.propose is called trial_energy now"):
        simulation = MetropolisMC(atoms, 300.0, [Displacement(0.1)], seed=1)
    simulation.run(5)
    assert atoms.calc.asked.count(1) >= 5


def test_keys_of_diagnostics() -> None:
    found = RenamedKeys({"energy_std": 0.1, "members": []}, DIAGNOSTICS)
    with pytest.warns(DeprecationWarning, match="energy_spread is called energy_std now"):
        assert found["energy_spread"] == 0.1
    with pytest.warns(DeprecationWarning, match="energy_spread is called energy_std now"):
        assert found.get("energy_spread", 1.0) == 0.1
    assert "energy_spread" in found
    assert found.get("energy_std") == 0.1
    assert "forces_spread" not in found
    assert found.get("forces_spread", 1.0) == 1.0
    assert found.get("members") == []
    assert dict(found) == {"energy_std": 0.1, "members": []}
    for missing in ("forces_spread", "nothing"):
        with pytest.raises(KeyError, match=missing):
            found[missing]


def test_the_answer_of_a_classifier() -> None:
    with pytest.warns(DeprecationWarning, match="Label is called Prediction now"):
        assert classifier.Label is classifier.Prediction
    with pytest.raises(AttributeError, match="nothing"):
        _ = classifier.nothing
    prediction = classifier.Prediction("metal", {"metal": 1.0}, "metal", 1.0, 0.5, 0.1)
    with pytest.warns(DeprecationWarning, match=r"Prediction\.novelty is called out_of_distribution now"):
        assert prediction.novelty == 0.5
    with pytest.warns(DeprecationWarning, match=r"Prediction\.spread is called std now"):
        assert prediction.spread == 0.1


def test_methods_of_the_calculator() -> None:
    atoms = bulk("Cu", cubic=True)
    calc = AndersoNN("mlearn-pbe", dtype="float64")
    atoms.calc = calc
    atoms.get_potential_energy()
    atoms.positions[0] += 0.1
    with pytest.warns(DeprecationWarning, match=r"AndersoNN\.propose is called trial_energy now"):
        energy = calc.propose(atoms, np.array([0]))
    with pytest.warns(DeprecationWarning, match=r"AndersoNN\.settle is called commit now"):
        calc.settle(True)
    assert energy == pytest.approx(AndersoNN("mlearn-pbe", dtype="float64").get_potential_energy(atoms), abs=1e-5)


def test_moves_that_override_methods_by_their_earlier_names() -> None:
    """They sample what they say: to leave their methods out would sample another distribution silently."""
    with pytest.warns(DeprecationWarning, match=r"Never\.may_change is called is_allowed now"):

        class Never(SpinFlip):
            def may_change(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
                return np.zeros(len(values), dtype=bool)

    assert not Never().is_allowed(np.array([1.0, -1.0])).any()
    with pytest.warns(DeprecationWarning, match=r"Trial\.touched is called changed now"):
        np.testing.assert_array_equal(Trial(np.array([3]), 0.0, None).touched, [3])


def test_names_of_tiles_and_of_simulations() -> None:
    with pytest.warns(DeprecationWarning, match="Tiled is called TiledEvaluator now"):
        assert tiles.Tiled is tiles.TiledEvaluator
    with pytest.raises(AttributeError, match="nothing"):
        _ = tiles.nothing
    atoms = bulk("Cu", cubic=True)
    atoms.calc = EMT()
    with pytest.warns(DeprecationWarning, match=r"MetropolisMC\.go_on is called iterate now"):
        list(MetropolisMC(atoms, 300.0, [Displacement(0.1)], seed=1).go_on(1))
