"""Changes of a few atoms: the same as evaluating everything, and gone without a trace when they are taken back."""

from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import message_model, rattled, silicon
from tiled_models import CASES, MODEL, energy, results, same, tiled

from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.tiles import TiledEvaluator

MESSAGE_MODEL = message_model()


def random_change(atoms: Atoms, random: np.random.Generator) -> np.ndarray:
    """Change an atom or two in one of many ways; their indices."""
    kind = random.integers(5)
    changed = random.choice(len(atoms), 2 if kind in (2, 3) else 1, replace=False)
    if kind == 0:
        atoms.positions[changed] += random.normal(size=3)
    elif kind == 1:  # far, and out of the cell
        atoms.positions[changed] += 9.0 * random.normal(size=3) * atoms.pbc + 0.2 * random.normal(size=3)
    elif kind == 2:
        atoms.positions[changed] += 0.3 * random.normal(size=(2, 3))
    elif kind == 3:
        atoms.numbers[changed] = atoms.numbers[changed[::-1]]
    else:
        atoms.numbers[changed] = random.choice([1, 6, 8, 14, 29])
    return changed


def wide() -> Atoms:
    """A crystal larger than one tile with its context."""
    return rattled(silicon() * (4, 3, 1), 0.05)


def state(evaluator: TiledEvaluator) -> dict[str, Any]:
    state = evaluator._state
    assert state is not None
    lists = [np.sort(state.bins.members(np.array([b]))) for b in range(len(state.bins.count))]
    return {
        "energy": state.energy,
        "tile_energies": state.tile_energies.copy(),
        "energies": state.energies.copy(),
        "positions": state.positions.copy(),
        "numbers": state.numbers.copy(),
        "bins": np.concatenate(lists),
        "count": state.bins.count.copy(),
    }


def identical(one: dict[str, Any], other: dict[str, Any]) -> None:
    for name, value in one.items():
        assert np.array_equal(value, other[name]), name


@settings(max_examples=8)
@given(
    name=st.sampled_from(sorted(CASES)),
    seed=st.integers(0, 10**6),
    more=st.sampled_from([0.0, 1.0]),
    model=st.sampled_from([MODEL, MESSAGE_MODEL]),
)
def test_following_changes_is_evaluating_everything(name: str, seed: int, more: float, model: EnergyModel) -> None:
    random, atoms, context = np.random.default_rng(seed), CASES[name](), model.receptive_field + more
    evaluator = tiled(3.0, context, model)
    energy(evaluator, atoms)
    for step in range(5):
        before, was = state(evaluator), atoms.copy()
        changed = random_change(atoms, random)
        try:
            proposed = evaluator.trial_energy(atoms, changed)
        except ValueError:  # two atoms on one site
            atoms = was
            identical(before, state(evaluator))
            continue
        full = results(tiled(3.0, context, model), atoms, forces=False)
        assert proposed == pytest.approx(full["energy"], rel=1e-12, abs=1e-11)
        accepted = step % 2 == 0
        evaluator.commit(accepted)
        if accepted:
            np.testing.assert_allclose(state(evaluator)["energies"], full["energies"], atol=1e-11)
        else:
            identical(before, state(evaluator))
            atoms = was


def test_changes_are_found_by_comparison() -> None:
    """As an ASE code does it: the structure changes, and the energy is asked for."""
    atoms, random = wide(), np.random.default_rng(5)
    evaluator, followed = tiled(3.0, 4.0), 0
    for _ in range(12):
        random_change(atoms, random)
        same(results(evaluator, atoms, forces=False), results(tiled(3.0, 4.0), atoms, forces=False), 1e-11)
        followed += evaluator.diagnostics["incremental"]
    assert followed >= 8
    results(evaluator, atoms, forces=False)
    assert evaluator.diagnostics["tiles"] == 0


@pytest.mark.parametrize("model", [MODEL, MESSAGE_MODEL], ids=["plain", "message"])
def test_atoms_that_appear_and_vanish(model: EnergyModel) -> None:
    atoms, random = wide(), np.random.default_rng(6)
    evaluator, followed = tiled(3.0, model.receptive_field, model), 0
    energy(evaluator, atoms)
    for _ in range(12):
        was, before = atoms.copy(), state(evaluator)
        if random.random() < 0.5:
            atoms.append("H")
            atoms.positions[-1] = random.random(3) @ atoms.cell.array
        else:
            del atoms[int(random.integers(len(atoms)))]
        try:
            proposed = evaluator.trial_energy(atoms, np.arange(len(atoms)))
        except ValueError:
            atoms = was
            continue
        followed += evaluator.diagnostics["incremental"]
        assert proposed == pytest.approx(energy(tiled(3.0, model.receptive_field, model), atoms), abs=1e-10)
        accepted = random.random() < 0.5
        evaluator.commit(accepted)
        if not accepted:
            identical(before, state(evaluator))
            atoms = was
    assert followed >= 6


def test_a_change_of_the_cell_is_taken_back_too() -> None:
    atoms = CASES["crystal"]()
    evaluator = tiled(3.0, 4.0)
    energy(evaluator, atoms)
    before, strained = state(evaluator), atoms.copy()
    strained.set_cell(atoms.cell.array * 1.01, scale_atoms=True)
    proposed = evaluator.trial_energy(strained, np.arange(len(atoms)))
    assert proposed == pytest.approx(energy(tiled(3.0, 4.0), strained), abs=1e-10)
    evaluator.commit(False)
    identical(before, state(evaluator))
    evaluator.trial_energy(strained, np.arange(len(atoms)))
    evaluator.commit(True)
    assert energy(evaluator, strained) == proposed


def test_only_tiles_with_a_changed_atom_are_evaluated() -> None:
    atoms = wide()
    evaluator = tiled(3.0, 4.0)
    energy(evaluator, atoms)
    everything = evaluator.diagnostics["tiles"]
    atoms.positions[7] += 0.05
    evaluator.trial_energy(atoms, np.array([7]))
    assert evaluator.diagnostics["incremental"]
    assert evaluator.diagnostics["tiles"] < 0.7 * everything


def test_nothing_is_lost_in_a_failed_move() -> None:
    atoms = CASES["crystal"]()
    evaluator = tiled(3.0, 4.0)
    energy(evaluator, atoms)
    before = state(evaluator)
    for number, position, text in (
        (79, atoms.positions[3], "contains Au"),
        (14, [np.nan, 0.0, 0.0], "not finite"),
        (14, atoms.positions[4], "apart"),
    ):
        trial = atoms.copy()
        trial.numbers[3], trial.positions[3] = number, position
        with pytest.raises(ValueError, match=text):
            evaluator.trial_energy(trial, np.array([3]))
        identical(before, state(evaluator))
    evaluator.trial_energy(atoms, np.array([3]))
    with pytest.raises(RuntimeError, match="was not committed"):
        evaluator.trial_energy(atoms, np.array([3]))


def test_trial_energy_may_be_the_first_call() -> None:
    atoms = CASES["crystal"]()
    evaluator = tiled(3.0, 4.0)
    expected = energy(tiled(3.0, 4.0), atoms)
    assert evaluator.trial_energy(atoms, np.array([0])) == expected
    evaluator.commit(False)
    assert evaluator.trial_energy(atoms, np.arange(len(atoms))) == expected
    evaluator.commit(True)
    assert energy(evaluator, atoms) == expected


def test_an_uncommitted_trial_is_not_a_state() -> None:
    atoms = CASES["crystal"]()
    evaluator = tiled(3.0, 4.0)
    expected = energy(evaluator, atoms)
    moved = atoms.copy()
    moved.positions[2] += 0.4
    evaluator.trial_energy(moved, np.array([2]))
    assert energy(evaluator, atoms) == expected


def test_atoms_that_leave_a_bounded_grid() -> None:
    """Where an atom goes further out than any was, space is cut anew."""
    atoms = CASES["open"]()
    evaluator = tiled(4.0, 4.0)
    energy(evaluator, atoms)
    for step in (0.1, 6.0, 25.0, -60.0):
        atoms.positions[0, 0] += step
        assert energy(evaluator, atoms) == pytest.approx(energy(tiled(4.0, 4.0), atoms), abs=1e-10)
    crowd = CASES["crystal"]()
    evaluator = tiled(3.0, 4.0)
    energy(evaluator, crowd)
    for index in range(8):  # more than a bin has room for
        crowd.positions[index] = [5.0, 5.0, 2.0] + np.array([index % 2, index // 2 % 2, index // 4]) * 0.8
        evaluator.trial_energy(crowd, np.array([index]))
        evaluator.commit(True)
        assert evaluator._state is not None
        assert evaluator._state.energy == pytest.approx(energy(tiled(3.0, 4.0), crowd), abs=1e-9)


@pytest.mark.parametrize("layers", [0, 1])
@pytest.mark.parametrize("model", [MODEL, MESSAGE_MODEL], ids=["plain", "message"])
def test_rounding_decides_nothing_in_a_crystal_on_the_faces_of_tiles(model: EnergyModel, layers: int) -> None:
    """Atoms lie just as far away as is solved for: away and back is as before, and as evaluating everything."""
    atoms, random = bulk("Cu", a=3.61, cubic=True) * (9, 1, 1), np.random.default_rng(0)
    context = model.receptive_field + 1.805 * layers
    evaluator = tiled(3.6, context, model)
    start = energy(evaluator, atoms)
    for _ in range(6):
        index, was = random.integers(len(atoms)), atoms.positions.copy()
        atoms.positions[index] += random.normal(scale=0.2, size=3)
        assert energy(evaluator, atoms) == pytest.approx(energy(tiled(3.6, context, model), atoms), abs=1e-9)
        atoms.positions = was
        assert energy(evaluator, atoms) == pytest.approx(start, abs=1e-9)
