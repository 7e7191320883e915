"""Spin lattices through the calculator: extensive, incremental energies exact, and clear words for what is none."""

import copy
import pickle
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import CalculationFailed, PropertyNotImplementedError
from hypothesis import given, settings
from hypothesis import strategies as st

from ase_andersonn import AndersoNN, load_model, save_model
from ase_andersonn.lattice import tile_energies
from ase_andersonn.lattice.evaluator import LatticeEvaluator
from ase_andersonn.lattice.model import GridConfig, GridModel
from ase_andersonn.lattice.spins import PRIMITIVE, spin_lattice

CONFIGS = {
    "square": GridConfig(n_hidden=8),
    "triangular": GridConfig("triangular", n_hidden=8),
    "cubic": GridConfig("cubic", n_hidden=4),
    "wide": GridConfig(focus=2, context=1, n_hidden=8),
    "far": GridConfig(focus=2, context=3, n_hidden=8, network="convolutional"),
    "equilibrium": GridConfig(network="equilibrium", n_hidden=6),
    "chain": GridConfig("chain", focus=3, context=2, n_hidden=8),
    "three values": GridConfig(values=(-1.0, 0.0, 1.0), n_hidden=8),
}
SIZES = {"cubic": 4, "wide": 6, "far": (8, 10), "chain": 12}
every = pytest.mark.parametrize("name", list(CONFIGS))


def model_of(name: str, seed: int = 0) -> GridModel:
    torch.manual_seed(seed)
    return GridModel(CONFIGS[name])


def lattice(name: str, seed: int = 0, periodic: Any = True) -> Atoms:
    config = CONFIGS[name]
    atoms = spin_lattice(config.lattice, SIZES.get(name, 5), periodic=periodic)
    rng = np.random.default_rng(seed)
    atoms.set_initial_magnetic_moments(rng.choice(np.array(config.values), len(atoms)))
    return atoms


def calculator(name: str, **kwargs: Any) -> AndersoNN:
    return AndersoNN(model_of(name), dtype="float64", **kwargs)


def evaluator(name: str, *, fresh: bool = False) -> LatticeEvaluator:
    found = (calculator if fresh else reference)(name).evaluator
    assert isinstance(found, LatticeEvaluator)
    twin = copy.copy(found)  # which shares the tables
    twin.reset()
    return twin


@cache
def reference(name: str) -> AndersoNN:
    """One for all: its tables are made once."""
    return calculator(name)


def full_energy(name: str, atoms: Atoms) -> float:
    return float(reference(name).evaluate([atoms], forces=False)[0]["energy"])


def flipped(config: GridConfig, moments: np.ndarray, chosen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Other values at the chosen sites."""
    values = np.array(config.values)
    turns = rng.integers(1, len(values), len(chosen))
    return values[(values.searchsorted(moments[chosen]) + turns) % len(values)]


@every
def test_energy_is_the_sum_of_the_networks_tiles(name: str) -> None:
    atoms, model = lattice(name), model_of(name).double()
    atoms.calc = calculator(name)
    energy = atoms.get_potential_energy()
    sizes = SIZES.get(name, 5)
    shape = sizes if isinstance(sizes, tuple) else (sizes,) * model.config.n_axes
    values = torch.tensor(atoms.get_initial_magnetic_moments()).view(1, *shape)
    assert energy == pytest.approx(model(values).item(), rel=1e-12)
    energies = atoms.calc.get_property("energies", atoms)
    assert energies.shape == (len(atoms),)
    assert energies.sum() == pytest.approx(energy, rel=1e-12)
    assert atoms.calc.diagnostics["tiles"] == len(atoms) // model.config.focus**model.config.n_axes


@every
def test_energy_is_extensive(name: str) -> None:
    atoms = lattice(name)
    n_axes = len(PRIMITIVE[CONFIGS[name].lattice])
    doubled = atoms.repeat([2] * n_axes + [1] * (3 - n_axes))
    assert full_energy(name, doubled) == pytest.approx(2**n_axes * full_energy(name, atoms), rel=1e-12)


@every
def test_a_shift_by_the_focus_and_the_order_of_atoms_change_nothing(name: str) -> None:
    atoms, config = lattice(name), CONFIGS[name]
    shifted = atoms.copy()
    shifted.positions += config.focus * PRIMITIVE[config.lattice][0] + 0.2
    shuffled = atoms[np.random.default_rng(0).permutation(len(atoms))]
    energy = full_energy(name, atoms)
    assert full_energy(name, shifted) == pytest.approx(energy, rel=1e-12)
    assert full_energy(name, shuffled) == pytest.approx(energy, rel=1e-12)


def test_energies_belong_to_their_sites() -> None:
    """A flip changes the energies of the sites whose tiles hold it, and no others."""
    atoms = lattice("square")
    atoms.calc = calculator("square")
    before = atoms.calc.get_property("energies", atoms)
    moments = atoms.get_initial_magnetic_moments()
    moments[12] *= -1  # the middle of 5×5
    atoms.set_initial_magnetic_moments(moments)
    difference = (atoms.calc.get_property("energies", atoms) - before).reshape(5, 5)
    assert np.abs(difference[1:4, 1:4]).min() > 0
    difference[1:4, 1:4] = 0
    np.testing.assert_array_equal(difference, 0.0)


@every
@pytest.mark.parametrize("closed", [True, False])
@settings(max_examples=10)
@given(seed=st.integers(0, 2**31))
def test_incremental_energies_are_the_full_ones(name: str, closed: bool, seed: int) -> None:
    rng, config = np.random.default_rng(seed), CONFIGS[name]
    periodic = closed or [bool(k) for k in rng.integers(0, 2, config.n_axes)]
    atoms, found = lattice(name, seed, periodic), evaluator(name)
    order = rng.permutation(len(atoms))
    atoms = atoms[order]
    committed = found.trial_energy(atoms, np.arange(len(atoms)))
    found.commit(True)
    for _ in range(8):
        moments = atoms.get_initial_magnetic_moments()
        changed = rng.choice(len(atoms), rng.integers(1, 5), replace=False)
        atoms.arrays["initial_magmoms"][changed] = flipped(config, moments, changed, rng)
        energy = found.trial_energy(atoms, changed)
        assert energy == pytest.approx(full_energy(name, atoms), abs=1e-10)
        accepted = bool(rng.integers(2))
        found.commit(accepted)
        if accepted:
            committed = energy
        else:
            atoms.set_initial_magnetic_moments(moments)
    assert found.trial_energy(atoms, np.array([0])) == pytest.approx(committed, abs=1e-10)


@every
@pytest.mark.parametrize("closed", [True, False])
def test_sets_of_independent_sites(name: str, closed: bool) -> None:
    """They hold each atom once, and what flips in one set adds up."""
    rng, config, found = np.random.default_rng(3), CONFIGS[name], evaluator(name)
    atoms = lattice(name, 1, closed)[rng.permutation(len(lattice(name)))]
    sets = found.independent_sets(atoms)
    np.testing.assert_array_equal(np.sort(np.concatenate(sets)), np.arange(len(atoms)))
    energy = found.trial_energy(atoms, np.arange(len(atoms)))
    found.commit(True)
    for chosen in sets:
        moments = atoms.get_initial_magnetic_moments()
        after = flipped(config, moments, chosen, rng)
        atoms.arrays["initial_magmoms"][chosen] = after
        changes = found.trial_energy_changes(atoms, chosen)
        accepted = rng.random(len(chosen)) < 0.5
        for k in rng.choice(len(chosen), min(3, len(chosen)), replace=False):
            alone = atoms.copy()
            alone.arrays["initial_magmoms"][:] = moments
            alone.arrays["initial_magmoms"][chosen[k]] = after[k]
            assert changes[k] == pytest.approx(full_energy(name, alone) - energy, abs=1e-10)
        atoms.arrays["initial_magmoms"][chosen] = np.where(accepted, after, moments[chosen])
        found.commit_each(accepted)
        energy += changes[accepted].sum()
        assert energy == pytest.approx(full_energy(name, atoms), abs=1e-9)
        assert found.trial_energy(atoms, chosen[:1]) == pytest.approx(energy, abs=1e-9)
        found.commit(False)


@pytest.mark.parametrize(("size", "block"), [(3, 3), (5, 5), (6, 3), (8, 4), (10, 5), (64, 4), (1026, 3)])
def test_independent_sets_are_few_and_alike(size: int, block: int) -> None:
    sets = evaluator("square").independent_sets(spin_lattice("square", size))
    assert [len(one) for one in sets] == [(size // block) ** 2] * block**2


def test_independent_sets_of_an_axis_that_nothing_divides() -> None:
    sets = evaluator("square").independent_sets(spin_lattice("square", 23))  # six blocks of three, and one of five
    assert sorted(map(len, sets), reverse=True)[:9] == [49] * 9
    assert len(sets) <= 25


@pytest.mark.parametrize("name", ["square", "triangular", "equilibrium", "three values"])
@pytest.mark.parametrize("closed", [True, False])
def test_the_table_is_the_network(name: str, closed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = lattice(name, periodic=closed)
    results = []
    for limit in (4**9, 1):
        monkeypatch.setattr(tile_energies, "TABLE_STATES", limit)
        found = evaluator(name, fresh=True)
        results.append(found.calculate(atoms, forces=False, stress=False, changes=["initial_magmoms"])["energies"])
        assert found.diagnostics["method"] == ("table" if limit > 1 else "network")
    np.testing.assert_allclose(*results, atol=1e-12)


def test_a_single_move_evaluates_only_its_tiles() -> None:
    found, atoms = evaluator("square"), spin_lattice("square", 40)
    found.calculate(atoms, forces=False, stress=False, changes=[])
    assert found.diagnostics["evaluated"] == 1600
    atoms.arrays["initial_magmoms"][7] = -1
    found.trial_energy(atoms, np.array([7]))
    assert found.diagnostics["evaluated"] == 9


def test_a_failed_trial_energy_leaves_the_committed_state() -> None:
    found, atoms = evaluator("square"), lattice("square")
    energy = found.trial_energy(atoms, np.arange(25))
    found.commit(True)
    before = atoms.get_initial_magnetic_moments()
    atoms.arrays["initial_magmoms"][3] = 0.5
    with pytest.raises(ValueError, match="not among -1, 1"):
        found.trial_energy(atoms, np.array([3]))
    atoms.set_initial_magnetic_moments(before)
    atoms.positions[3] += [1.0, 0, 0]
    with pytest.raises(ValueError, match="left its site"):
        found.trial_energy(atoms, np.array([3]))
    with pytest.raises(ValueError, match="share site"):
        found.trial_energy(atoms, np.arange(25))
    atoms.positions[3] -= [1.0, 0, 0]
    assert found.trial_energy(atoms, np.array([3])) == energy


def test_a_rejected_first_state_is_forgotten() -> None:
    found, atoms = evaluator("square"), lattice("square")
    found.trial_energy(atoms, np.array([0]))  # nothing is committed, so all is evaluated
    found.commit(False)
    with pytest.raises(RuntimeError, match="no committed state"):
        found.trial_energy_changes(atoms, np.array([0]))
    with pytest.raises(RuntimeError, match="no trial moves of this shape"):
        found.commit_each(np.array([True]))


def test_the_calculator_sees_flips() -> None:
    atoms = lattice("square")
    atoms.calc = calculator("square")
    first = atoms.get_potential_energy()
    moments = atoms.get_initial_magnetic_moments()
    atoms.set_initial_magnetic_moments(np.roll(moments, 1) * -1)
    second = atoms.get_potential_energy()
    assert first != second
    assert second == pytest.approx(full_energy("square", atoms), rel=1e-12)
    atoms.numbers[:] = 26
    assert atoms.get_potential_energy() == second
    atoms.calc.export_properties()


def test_many_structures_at_once() -> None:
    frames = [lattice("square", seed) for seed in range(3)] + [spin_lattice("square", (4, 6))]
    results = calculator("square").evaluate(frames, forces=False)
    for atoms, found in zip(frames, results, strict=True):
        assert found["energy"] == full_energy("square", atoms)


def test_no_forces() -> None:
    atoms = lattice("square")
    atoms.calc = calculator("square")
    with pytest.raises(PropertyNotImplementedError, match="an energy but no forces"):
        atoms.get_forces()
    assert np.isfinite(atoms.get_potential_energy())


def test_files_copies_and_pickles(tmp_path: Any) -> None:
    save_model(model_of("three values"), tmp_path / "spins.safetensors", {"name": "spins"})
    loaded = load_model(tmp_path / "spins.safetensors")
    assert loaded.config == CONFIGS["three values"]
    atoms = lattice("three values")
    calc = AndersoNN(loaded, dtype="float64")
    energy = calc.get_potential_energy(atoms)
    assert energy == pytest.approx(full_energy("three values", atoms), rel=1e-6)
    for twin in (copy.deepcopy(calc), pickle.loads(pickle.dumps(calc))):
        moments = atoms.get_initial_magnetic_moments()
        twin_energy = twin.get_potential_energy(atoms)
        assert twin_energy == energy
        atoms.set_initial_magnetic_moments(moments)


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (bulk("Fe", cubic=True), "do not fill a square lattice"),
        (spin_lattice("triangular", 4), "this is not a square lattice"),
        (spin_lattice("square", 2), "fewer than the 3 of a tile"),
        (spin_lattice("square", 4, spins=np.zeros(16)), "16 magnetic moments are not among -1, 1: 0"),
    ],
)
def test_what_is_no_lattice_of_the_model(atoms: Atoms, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calculator("square").get_potential_energy(atoms)


def test_a_focus_that_does_not_divide_the_lattice() -> None:
    with pytest.raises(ValueError, match="the focus of 2 does not divide; take 4 or 6 sites, or an open axis"):
        full_energy("wide", spin_lattice("square", 5))
    assert np.isfinite(full_energy("wide", spin_lattice("square", 5, periodic=False)))


@pytest.mark.parametrize("name", ["square", "cubic"])
def test_weights_that_are_not_finite(name: str) -> None:
    model = model_of(name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(torch.nan)
    with pytest.raises(CalculationFailed, match="not finite"):
        AndersoNN(model).get_potential_energy(lattice(name))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lattice": "kagome"}, "lattice is 'kagome'; choose one of chain"),
        ({"focus": 0}, "focus is"),
        ({"context": -1}, "context"),
        ({"n_hidden": 0}, "n_hidden is 0"),
        ({"values": (1.0, -1.0)}, "ascending"),
        ({"values": (1.0,)}, "at least two"),
    ],
)
def test_configs_without_a_meaning(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GridConfig(**arguments)


def test_an_unknown_network() -> None:
    with pytest.raises(ValueError, match="choose 'fully_connected'"):
        GridModel(GridConfig(network="graph"))  # type: ignore[arg-type]
