"""The calculator and ASE's contract, line by line."""

import copy
import pickle
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from laws import results, same
from small_models import (
    ELEMENTS,
    STRUCTURES,
    ethanol,
    rattled,
    silicon,
    slab,
    small_calculator,
    small_model,
    stiff_model,
)

from ase_andersonn import AndersoNN, MetropolisMC, calculator
from ase_andersonn.engine import evaluator as whole
from ase_andersonn.engine.energy_forces import evaluate
from ase_andersonn.lattice.model import GridConfig, GridModel
from ase_andersonn.mc import Displacement
from ase_andersonn.potentials import training_domain as domain_warnings
from ase_andersonn.properties import RESULTS
from ase_andersonn.structures.neighbors import neighbor_edges
from ase_andersonn.testing import check_calculator, computed
from ase_andersonn.tiles import Tiles

NAN, INF = float("nan"), float("inf")


# The contract as a whole


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

    monkeypatch.setattr(whole, "evaluate", spy)
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


def test_settings_are_not_changed_silently() -> None:
    calc = small_calculator()
    with pytest.raises(ValueError, match="tol cannot be changed; create a new AndersoNN"):
        calc.set(tol=1e-3)
    assert calc.parameters["tol"] == 1e-16
    assert calc.set() == {}
    by_torch_dtype: Any = torch.float64
    assert small_calculator(dtype=by_torch_dtype).todict() == calc.todict()  # ASE writes it into trajectories, as JSON


# Options


@pytest.mark.parametrize("tol", [0.0, -1.0, NAN, INF, 10**400, "1e-6", True])
def test_tolerances_that_make_no_sense(tol: float) -> None:
    with pytest.raises(ValueError, match="it is an energy tolerance in eV/atom and has to be positive"):
        small_calculator(tol=tol)


OPTIONS = [
    ("device", "tpu"),
    ("dtype", "float16"),
    ("skin", -0.1),
    ("skin", "0.5"),
    ("skin", INF),
    ("skin", True),
    ("compile", "yes"),
    ("warm_start", "no"),
]


def test_batches_that_make_no_sense() -> None:
    calc = small_calculator()
    with pytest.raises(TypeError, match=r"evaluate\(\) takes a list of structures; for one, \[atoms\]"):
        calc.evaluate(ethanol())
    for wrong in (0, NAN, "100"):
        with pytest.raises(ValueError, match=f"batch_atoms is {wrong!r}; it has to be a finite number, at least 1"):
            calc.evaluate([ethanol()], batch_atoms=wrong)


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


def test_numbers_of_numpy_are_numbers() -> None:
    calc = small_calculator(tol=np.float32(1e-4), skin=np.int64(1), warm_start=np.bool_(False), compile=np.bool_(False))
    assert (calc.evaluator.settings.skin, calc.evaluator.settings.warm_start) == (1.0, False)
    assert calc.parameters["tol"] == pytest.approx(1e-4)
    assert type(calc.parameters["tol"]) is float


@pytest.mark.parametrize(("option", "value"), OPTIONS)
def test_options_that_make_no_sense(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{option}.* {value!r}|^{option} is {value}"):
        small_calculator(**{option: value})


def test_the_callers_model_stays_as_it_is() -> None:
    model = small_model(dtype=torch.float32).train().requires_grad_(True)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    AndersoNN(model, dtype="float64", compile=False).get_forces(silicon())
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert {value.dtype for value in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("pbc", [True, (True, True, False), (False, False, True)])
def test_a_cell_far_too_small_is_an_error_at_once(pbc: Any) -> None:
    atoms = Atoms("Si", cell=[1e-5, 1e-5, 1e-5] if pbc is not True else [0.05, 0.05, 0.05], pbc=pbc)
    with pytest.raises(ValueError, match="the cell is too small: its heights are"):
        small_calculator().get_potential_energy(atoms)


def test_how_to_compile_is_checked_at_once() -> None:
    with pytest.raises(ValueError, match="compile is 'maybe'; use 'auto', 'native', True or False"):
        AndersoNN(small_model(), compile="maybe")  # type: ignore[arg-type]


def test_both_precisions_in_one_process() -> None:
    model, atoms = small_model(dtype=torch.float32), ethanol()
    single, double = (AndersoNN(model, dtype=dtype, tol=1e-8, compile=False) for dtype in ("float32", "float64"))
    energies = [calc.get_potential_energy(atoms.copy()) for calc in (single, double, single, double)]
    assert energies[0] == energies[2] != energies[1] == energies[3]
    assert energies[0] == pytest.approx(energies[1], rel=1e-6)
    assert torch.get_default_dtype() == torch.float32


def test_unknown_combinations_of_known_elements_are_said_once() -> None:
    model = small_model()
    model.card = {"combinations": [[6, 8, 1], [14]]}
    calc = AndersoNN(model, dtype="float64", compile=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calc.get_potential_energy(ethanol())
        calc.get_potential_energy(bulk("Si"))
    mixed = r"not trained on structures that hold the elements \['Cu', 'O'\] together"
    with pytest.warns(UserWarning, match=mixed) as warned:
        calc.get_potential_energy(slab())
    assert warned[0].filename == __file__, "it is this line that asked"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calc.get_forces(rattled(slab(), seed=4))


@pytest.mark.parametrize(
    ("card", "structure", "text"),
    [
        ({"combinations": [[6, 8, 1]]}, bulk("Si"), "not trained on structures of Si: its results for them"),
        ({"min_atoms": 10}, ethanol(), "molecules of fewer than 10 atoms, this one has 9"),
        ({"periodic": [True]}, ethanol(), "not trained on molecules and clusters"),
        ({"periodic": [False]}, bulk("Si"), "not trained on periodic structures"),
        ({"odd_electrons": False}, Atoms("OH", [[0, 0, 0], [0, 0, 1.0]]), "an odd number of electrons, radicals"),
    ],
)
def test_what_training_had_nothing_of_is_said(card: dict[str, Any], structure: Atoms, text: str) -> None:
    model = small_model()
    model.card = card
    calc = AndersoNN(model, dtype="float64", compile=False)
    with pytest.warns(UserWarning, match=text):
        calc.get_potential_energy(structure)


def known(**card: Any) -> AndersoNN:
    model = small_model()
    model.set_min_distance({(14, 14): 2.0})
    model.card = {"training": {}, **card}
    return AndersoNN(model, dtype="float64", compile=False)


@pytest.mark.parametrize("many", [False, True])
def test_atoms_nearer_than_any_in_training_are_said_once(many: bool) -> None:
    calc, atoms, other = known(), silicon(), silicon()
    atoms.positions[1] = atoms.positions[0] + [1.9, 0.0, 0.0]
    text = r"atoms 0 \(Si\) and 1 \(Si\) are 1.9 Å apart; nearer than 2 Å the model was not trained on such pairs"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calc.get_potential_energy(other)
        calc.evaluate([other])
    with pytest.warns(UserWarning, match=text) as warned:
        calc.evaluate([other, atoms]) if many else calc.get_potential_energy(atoms)
    assert warned[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calc.get_potential_energy(rattled(atoms, 0.01))


def test_atoms_that_come_too_near_on_a_trajectory_are_said() -> None:
    calc, atoms = known(), silicon()
    towards = atoms.get_distance(0, 1, mic=True, vector=True)

    def approach() -> None:
        for _ in range(12):
            calc.get_forces(atoms)
            atoms.positions[0] += 0.02 * towards

    with pytest.warns(UserWarning, match="nearer than 2 Å the model was not trained on such pairs"):
        approach()


def test_lone_atoms_are_said_where_none_were_learnt() -> None:
    lone = Atoms("Si", cell=[20.0] * 3, pbc=True)
    with pytest.warns(UserWarning, match=r"atom 0 \(Si\) has no neighbour within .* not trained on such atoms"):
        known(isolated=[]).get_potential_energy(lone)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        known(isolated=[14]).get_potential_energy(lone)
        known().get_potential_energy(lone)  # nothing is known of what was learnt


def test_warnings_of_a_structure_among_others_name_it() -> None:
    lone, near, other = Atoms("Si", cell=[20.0] * 3, pbc=True), silicon(), silicon()
    near.positions[1] = near.positions[0] + [1.9, 0.0, 0.0]
    near.info["name"] = "crystals/near.cif"
    with pytest.warns(UserWarning, match=": ") as warned:
        known(isolated=[], periodic=[False]).evaluate([other, lone, near])
    texts = sorted(str(warning.message) for warning in warned)
    assert [text.partition(": ")[0] for text in texts] == ["Si3CSi4", "Si", "crystals/near.cif"]
    assert all(text.endswith("Of other structures of which the same is true, nothing more is said.") for text in texts)
    with pytest.warns(UserWarning, match=r"^crystals/near.cif: atoms 0 \(Si\) and 1"):
        known().get_potential_energy(near)


def test_warnings_of_a_lone_atom_do_not_contradict_each_other() -> None:
    with pytest.warns(UserWarning, match="not trained on") as warned:
        AndersoNN(compile=False).get_potential_energy(Atoms("Si"))
    texts = " ".join(str(warning.message) for warning in warned)
    assert len(warned) == 2
    assert "molecules and clusters" in texts
    assert "has no neighbour within" in texts
    assert "nearest neighbour at" not in texts


@pytest.mark.parametrize("many", [False, True])
def test_an_unknown_element_comes_before_what_training_had_nothing_of(many: bool) -> None:
    """Where the element's number is beyond those the model counts, and where it is between them."""
    for symbol in ("He", "Au"):
        atoms = Atoms(["Si", symbol], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.5]])
        calc = known(isolated=[])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ValueError, match=f"contains {symbol}; this model knows"):
                calc.evaluate([atoms]) if many else calc.get_potential_energy(atoms)


def test_charges_that_change_nothing_are_said() -> None:
    atoms = ethanol()
    expected = small_calculator().get_potential_energy(atoms)
    atoms.set_initial_charges([1.0] + [0.0] * 8)
    with pytest.warns(UserWarning, match="the model knows no charges"):
        assert small_calculator().get_potential_energy(atoms) == expected
    atoms = ethanol()
    atoms.info["charge"] = -1
    with pytest.warns(UserWarning, match="the model knows no charges"):
        assert small_calculator().get_potential_energy(atoms) == expected


def test_moments_that_change_nothing_are_said() -> None:
    atoms = ethanol()
    expected = small_calculator().get_potential_energy(atoms)
    atoms.set_initial_magnetic_moments([1.0] + [0.0] * 8)
    with pytest.warns(UserWarning, match="the initial magnetic moments differ changes nothing"):
        assert small_calculator().get_potential_energy(atoms) == expected


def test_moments_of_a_molecule_are_said_to_change_nothing() -> None:
    """As `ase.build.molecule` gives them to the oxygen molecule, both 1."""
    atoms = ethanol()
    atoms.set_initial_magnetic_moments([1.0] * 9)
    with pytest.warns(UserWarning, match="knows no spins: the initial magnetic moments change nothing"):
        small_calculator().get_potential_energy(atoms)


def test_moments_of_a_crystal_that_are_alike_pass_in_silence() -> None:
    atoms = bulk("Si")
    atoms.set_initial_magnetic_moments([0.6] * 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        small_calculator().get_potential_energy(atoms)


@pytest.mark.parametrize(
    ("card", "structure"),
    [
        ({"min_atoms": 9, "periodic": [False]}, ethanol()),
        ({"min_atoms": 9, "periodic": [True]}, bulk("Si")),  # a primitive cell is no small structure
        ({"periodic": [False, True]}, slab()),
        ({"odd_electrons": False}, ethanol()),
        ({"odd_electrons": False}, bulk("Cu")),
        ({"odd_electrons": True}, Atoms("OH", [[0, 0, 0], [0, 0, 1.0]])),
        ({}, ethanol()),
    ],
)
def test_what_training_had_is_not_warned_of(card: dict[str, Any], structure: Atoms) -> None:
    model = small_model()
    model.card = card
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        AndersoNN(model, dtype="float64", compile=False).get_potential_energy(structure)


def test_unknown_combinations_are_said_of_batches_too() -> None:
    model = small_model()
    model.card = {"combinations": [[6, 8, 1], [14]]}
    calc = AndersoNN(model, dtype="float64", compile=False)
    with pytest.warns(UserWarning, match=r"\['Cu', 'O'\] together"):
        calc.evaluate([silicon(), slab()], forces=False)


def test_neighbours_are_sought_only_while_a_pair_may_still_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    sought: list[int] = []

    def counted(*args: Any) -> Any:
        sought.append(len(args[0]))
        return neighbor_edges(*args)

    monkeypatch.setattr(domain_warnings, "neighbor_edges", counted)
    model, atoms = small_model(), slab()
    model.card = {"combinations": [sorted(set(atoms.numbers.tolist()) - {8}), [8]]}
    atoms.set_initial_magnetic_moments(np.ones(len(atoms)))
    calc = AndersoNN(model, dtype="float64", compile=False)
    with pytest.warns(UserWarning, match=r"\['Cu', 'O'\] together"):
        calc.get_potential_energy(atoms)
    assert len(sought) == 1
    calc.get_potential_energy(atoms)
    calc.get_potential_energy(rattled(atoms, seed=4))
    assert len(sought) == 1

    apart = Atoms("CuC", [[0.0, 0.0, 0.0], [7.0, 0.0, 0.0]], magmoms=[1.0, 1.0])
    calc.get_potential_energy(apart)
    calc.get_potential_energy(apart)
    assert len(sought) == 2, "that nothing changed is no reason to look"
    apart.positions[1, 0] = 2.0
    with pytest.warns(UserWarning, match=r"\['C', 'Cu'\] together"):
        calc.get_potential_energy(apart)


# Copies


def test_copies_follow_a_trajectory_of_their_own() -> None:
    calc, atoms = small_calculator(), silicon()
    for seed in range(3):
        atoms.rattle(0.02, seed=seed)
        calc.get_forces(atoms)
    expected = results(small_calculator(warm_start=False), atoms)
    for copied in (copy.deepcopy(calc), pickle.loads(pickle.dumps(calc))):
        assert copied.results["energy"] == calc.results["energy"]
        assert copied.model is not calc.model
        same(results(copied, atoms), expected)
        copied.get_forces(ethanol())
        same(results(copied, atoms), expected)
    same(results(calc, atoms), expected)


def test_threads_that_share_a_calculator_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    calc = small_calculator(warm_start=False)
    evaluate_one = calc.evaluator.calculate
    fused: list[int] = []
    inside: set[int] = set()

    def slowly(*args: Any, **kwargs: Any) -> dict[str, Any]:
        inside.add(threading.get_ident())
        fused.append(len(inside))
        time.sleep(1e-3)
        found = evaluate_one(*args, **kwargs)
        inside.remove(threading.get_ident())
        return found

    monkeypatch.setattr(calc.evaluator, "calculate", slowly)
    structures = [silicon() for _ in range(4)]
    for seed, atoms in enumerate(structures):
        atoms.rattle(0.05, seed=seed)
    expected = [small_calculator(warm_start=False).get_forces(a) for a in structures]

    def largest_error(k: int) -> float:
        error = 0.0
        for repeat in range(20):
            if repeat % 2:
                calc.reset()
            error = max(error, np.abs(calc.get_forces(structures[k]) - expected[k]).max())
        return error

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(largest_error, range(4))) < 1e-10
    assert max(fused) == 1


def test_settling_waits_for_another_threads_calculation() -> None:
    calc, atoms = small_calculator(), silicon()
    calc.trial_energy(atoms, np.arange(len(atoms)))
    settled = threading.Thread(target=calc.commit, args=(True,))
    with calc._turn:
        settled.start()
        settled.join(0.2)
        assert settled.is_alive()
    settled.join(10.0)
    assert not settled.is_alive()


@pytest.mark.parametrize("copied", [lambda calc: calc, copy.deepcopy, lambda calc: pickle.loads(pickle.dumps(calc))])
def test_what_is_handed_on_waits_too(copied: Any) -> None:
    spins = Atoms("H9", [[x, y, 0.0] for x in range(3) for y in range(3)], cell=[3, 3, 1], pbc=[True, True, False])
    spins.set_initial_magnetic_moments([1.0] * 9)
    calc = copied(AndersoNN(GridModel(GridConfig()), compile=False))
    asked = threading.Thread(target=calc.independent_sets, args=(spins,))
    with calc._turn:
        asked.start()
        asked.join(0.2)
        assert asked.is_alive()
    asked.join(10.0)
    assert not asked.is_alive()


def test_threads_with_a_calculator_each() -> None:
    model, found = small_model(), {}
    structures = {name: STRUCTURES[name]() for name in STRUCTURES}

    def work(name: str) -> None:
        calc, atoms = AndersoNN(model, dtype="float64", tol=1e-16, compile=False), structures[name].copy()
        for seed in range(4):
            atoms.rattle(0.02, seed=seed)
            calc.get_forces(atoms)
        found[name] = results(calc, structures[name])

    threads = [threading.Thread(target=work, args=(name,)) for name in structures]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == set(structures)
    for name, atoms in structures.items():
        same(found[name], results(small_calculator(warm_start=False), atoms))


# Many structures at once


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


# Monte Carlo


@pytest.mark.parametrize("tiles", [None, Tiles(focus=5.0, context=5.0)])
def test_an_overlap_is_an_infinite_energy_and_leaves_the_settled_state(tiles: Tiles | None) -> None:
    calc, atoms = small_calculator(tiles=tiles), bulk("Si", cubic=True).repeat((3, 1, 1))
    everything = np.arange(len(atoms))
    energy = calc.trial_energy(atoms, everything)
    calc.commit(True)
    atoms.positions[1] += 0.1
    moved = calc.trial_energy(atoms, np.array([1]))
    calc.commit(False)
    atoms.positions[1] = atoms.positions[0]
    assert calc.trial_energy(atoms, np.array([1])) == INF
    calc.commit(False)
    atoms.positions[1] = bulk("Si", cubic=True).positions[1] + 0.1
    assert calc.trial_energy(atoms, np.array([1])) == pytest.approx(moved, abs=1e-9)
    calc.commit(True)
    atoms.positions[1] -= 0.1
    assert calc.trial_energy(atoms, np.array([1])) == pytest.approx(energy, abs=1e-9)
    calc.commit(True)


def test_many_atoms_start_a_move_from_the_solutions_before_it() -> None:
    calc, atoms = AndersoNN(small_model(), dtype="float64", tol=1e-8, compile=False), bulk("Si", cubic=True) * (4, 4, 3)
    calc.trial_energy(atoms, np.arange(len(atoms)))
    calc.commit(True)
    rng = np.random.default_rng(0)
    for atom in (5, 200, 77):
        moved = atoms.copy()
        moved.positions[atom] += rng.normal(0.0, 0.05, 3)
        energy = calc.trial_energy(moved, np.array([atom]))
        calc.commit(False)
        fresh = AndersoNN(small_model(), dtype="float64", tol=1e-8, compile=False, warm_start=False)
        assert energy == pytest.approx(fresh.get_potential_energy(moved), abs=1e-8 * len(atoms))
    assert len(calc.evaluator.warm_start.predictor) == 4
    moved.numbers[3] = 6
    calc.trial_energy(moved, np.array([3]))
    assert len(calc.evaluator.warm_start.predictor) == 1, "another element is another structure"
    calc.trial_energy(moved, np.arange(len(atoms)))
    assert len(calc.evaluator.warm_start.predictor) == 1, "nothing is taken from before where all atoms are named"


@pytest.mark.parametrize("tiles", [None, Tiles(focus=5.0, context=5.0)])
def test_metropolis_keeps_the_energy_of_its_atoms(tiles: Tiles | None) -> None:
    atoms = bulk("Si", cubic=True).repeat((3, 1, 1))
    atoms.calc = small_calculator(tiles=tiles)
    mc = MetropolisMC(atoms, 2000.0, [Displacement(0.3)], seed=1)
    mc.run(30)
    assert 0 < mc.statistics["Displacement"].accepted < 30
    fresh = small_calculator(tiles=tiles)
    assert mc.energy == pytest.approx(fresh.get_potential_energy(atoms.copy()), abs=1e-8)
