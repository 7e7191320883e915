"""The calculator's contract with ASE: conformance, results, diagnostics, batches."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from laws import results, same
from small_models import ELEMENTS, STRUCTURES, ethanol, rattled, silicon, small_calculator, small_model, stiff_model

from ase_andersonn import AndersoNN, calculator
from ase_andersonn.engine import evaluator as direct_evaluator
from ase_andersonn.engine.energy_forces import evaluate
from ase_andersonn.properties import RESULTS
from ase_andersonn.testing import check_calculator
from ase_andersonn.testing.calculators import computed
from ase_andersonn.tiles import Tiles


@pytest.mark.parametrize("tiles", [None, Tiles(focus=2.7, context=4.0)])
def test_forces_inside_inference_mode(tiles: Tiles | None) -> None:
    atoms = rattled(bulk("Si", cubic=True)) * 2
    outside, calc = results(small_calculator(tiles=tiles), atoms), small_calculator(tiles=tiles)
    with torch.inference_mode():
        same(results(calc, atoms), outside, 1e-12)


def test_an_error_above_the_tolerance_is_said() -> None:
    """Far below what single precision can reach, the residuals end at their floor."""
    calc = AndersoNN(stiff_model(dtype=torch.float32), tol=2e-12, warm_start=False, compile=False)
    with pytest.warns(UserWarning, match="estimated error of the energy"):
        calc.get_potential_energy(silicon())


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("warm_start", [True, False], ids=["warm", "cold"])
def test_conformance_in_double_precision(structure: str, warm_start: bool) -> None:
    atoms = STRUCTURES[structure]()
    check_calculator(small_calculator(warm_start=warm_start), atoms[:6], tol=1e-6, repeat=1e-6 if warm_start else 0.0)


def test_conformance_at_default_settings() -> None:
    calc = AndersoNN(small_model(dtype=torch.float32), compile=False)
    check_calculator(calc, silicon(), tol=2e-2, displacement=2e-2, strain=1e-2, repeat=1e-2)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_results_have_the_names_types_and_shapes_of_the_table(structure: str) -> None:
    calc, atoms = small_calculator(), STRUCTURES[structure]()
    calc.calculate(atoms, ["forces"])
    periodic = bool(atoms.pbc.all())
    assert set(calc.results) == {f.name for f in RESULTS if periodic or not f.name.startswith("stress")}
    assert type(calc.results["energy"]) is type(calc.results["free_energy"]) is float
    assert calc.results["free_energy"] == calc.results["energy"]
    exported = calc.export_properties()
    assert exported["natoms"] == len(atoms)


def test_only_what_is_asked_for_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[bool, bool]] = []

    def spy(*args: Any, **options: Any) -> Any:
        asked.append((options["forces"], options["stress"]))
        return evaluate(*args, **options)

    monkeypatch.setattr(direct_evaluator, "evaluate", spy)
    calc, atoms = small_calculator(), silicon()
    calc.get_potential_energy(atoms)
    assert set(calc.results) == {"energy", "free_energy", "energies"}
    for name in ("energies", "free_energy", "forces", "stress", "stresses", "energy"):
        calc.get_property(name, atoms)
    assert asked == [(False, False), (True, True)]


def test_diagnostics_say_what_it_cost() -> None:
    calc = small_calculator(tol=1e-8)
    assert calc.diagnostics == {}
    calc.get_forces(silicon())
    found = calc.diagnostics
    assert found["converged"]
    assert found["energy_error"] <= 1e-8
    assert 0 < found["residual"] <= 1e-4
    assert 0 < found["adjoint_residual"] <= 1e-4
    assert min(found["evaluations"].values()) > 0
    assert (found["rebuilds"], found["backend"], found["device"]) == (1, "eager", "cpu")
    assert set(found["times"]) == {"neighbors", "evaluate"}
    calc.reset()
    assert (calc.diagnostics, calc.results, calc.atoms) == ({}, {}, None)


def test_few_atoms_are_evaluated_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(calculator, "threads_for", lambda n_atoms: asked.append(n_atoms) or nullcontext())
    calc, atoms = small_calculator(), ethanol()
    atoms.calc = calc
    atoms.get_potential_energy()
    calc.trial_energy(atoms, np.array([0]))
    for batch_atoms, many in ((4, 9), (12, 12), (2000, 18)):
        calc.evaluate([atoms, atoms], batch_atoms=batch_atoms)
        assert asked.pop() == many
    assert asked == [9, 9]


def test_the_callers_model_stays_as_it_is() -> None:
    model = small_model(dtype=torch.float32).train().requires_grad_(True)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    AndersoNN(model, dtype="float64", compile=False).get_forces(silicon())
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert {value.dtype for value in model.parameters()} == {torch.float32}


def test_both_precisions_in_one_process() -> None:
    model, atoms = small_model(dtype=torch.float32), ethanol()
    single, double = (AndersoNN(model, dtype=dtype, tol=1e-5, compile=False) for dtype in ("float32", "float64"))
    energies = [calc.get_potential_energy(atoms.copy()) for calc in (single, double, single, double)]
    assert energies[0] == energies[2] != energies[1] == energies[3]
    assert energies[0] == pytest.approx(energies[1], rel=1e-6)
    assert torch.get_default_dtype() == torch.float32


def test_a_batch_is_as_if_each_were_alone() -> None:
    calc, frames = small_calculator(tol=1e-6), [make_one() for make_one in STRUCTURES.values()]
    for batch_atoms in (1, 15, 2000):
        batch = calc.evaluate(frames, stress=True, batch_atoms=batch_atoms)
        for given, atoms in zip(batch, frames, strict=True):
            expected = computed(small_calculator(tol=1e-6, warm_start=False), atoms)
            assert set(given) == set(expected)
            assert abs(given["energy"] - expected["energy"]) / len(atoms) <= 1e-6
            same(given, expected, tol=3e-3)


def test_a_batch_holds_what_was_asked_for() -> None:
    calc = small_calculator()
    assert calc.evaluate([]) == []
    (only,) = calc.evaluate([silicon()], forces=False)
    assert set(only) == {"energy", "free_energy", "energies"}
    assert calc.results == {}
    assert calc.evaluate([molecule("H2O")], stress=True)[0].keys() == {*only, "forces"}


def test_the_elements_of_the_model() -> None:
    assert small_calculator().model.elements == ELEMENTS


def test_a_stiff_model_converges_at_default_settings() -> None:
    calc = AndersoNN(stiff_model(), compile=False)
    for name, structure in STRUCTURES.items():
        assert np.isfinite(calc.get_forces(structure())).all(), name
