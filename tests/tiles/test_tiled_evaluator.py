"""The tiled sum: what it is near to, what it is exactly, and what it refuses."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from hypothesis import example, given
from hypothesis import strategies as st
from small_models import cartesian_model, ethanol, message_model, silicon, skewed
from tiled_models import CASES, CUTOFF, MODEL, TIGHT, chain_of_molecules, energy, results, same, sheet, tiled, untiled

from ase_andersonn.engine.equilibrium import SolveOptions
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.potentials.interface import ConvergenceError, Settings
from ase_andersonn.tiles import TiledEvaluator, Tiles
from ase_andersonn.tiles import batches as stream
from ase_andersonn.tiles import evaluator as tiled_module
from ase_andersonn.tiles import resume_file as work_module
from ase_andersonn.tiles.grid import cut


@pytest.mark.parametrize("name", CASES)
def test_it_comes_near_to_the_untiled_energy_with_the_context(name: str) -> None:
    atoms = CASES[name]()
    expected = results(untiled(), atoms)
    errors = []
    for context in (4.0, 8.0, 16.0):
        given = results(tiled(context=context), atoms)
        errors.append(max(float(np.abs(given[key] - expected[key]).max()) for key in ("energy", "forces")))
    assert errors[0] > 1e-4
    assert errors[1] < 0.1 * errors[0]
    same(given, expected, 1e-11)


def test_one_tile_that_holds_everything_is_the_untiled_energy() -> None:
    for atoms in (ethanol(), chain_of_molecules()):
        same(results(tiled(focus=50.0, context=CUTOFF), atoms), results(untiled(), atoms), 1e-12)


@pytest.mark.parametrize("name", ["open", "crystal", "slab"])
@pytest.mark.parametrize("model", [cartesian_model(), message_model()], ids=["cartesian", "message"])
def test_other_models_are_tiled_alike(model: EnergyModel, name: str) -> None:
    """Near to the untiled energy with the context, and forces the derivatives of what it is."""
    atoms = CASES[name]()
    expected = results(untiled(model), atoms)
    errors = []
    for more in (0.0, 12.0):
        given = results(tiled(context=model.receptive_field + more, model=model), atoms)
        errors.append(max(float(np.abs(given[key] - expected[key]).max()) for key in ("energy", "forces")))
    assert errors[0] > 1e-6
    same(given, expected, 1e-11)
    tiles, h = tiled(context=model.receptive_field, model=model), 1e-5
    direction = np.random.default_rng(0).normal(size=atoms.positions.shape)
    sides = []
    for sign in (h, -h):
        moved = atoms.copy()
        moved.positions += sign * direction
        sides.append(energy(tiles, moved))
    along = float((results(tiles, atoms)["forces"] * direction).sum())
    assert (sides[1] - sides[0]) / (2 * h) == pytest.approx(along, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("focus", [3.0, 5.0])
def test_messages_are_the_same_in_every_batch(focus: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles solved one by one, and all together: rows at the border of a batch get the same messages as others."""
    model, atoms = message_model(), CASES["open"]()
    together = results(tiled(focus, 8.5, model), atoms)
    monkeypatch.setitem(stream.MAX_SOLVED_ATOMS, "cpu", 1)
    alone = tiled(focus, 8.5, model)
    same(results(alone, atoms), together, 1e-12)
    assert alone.diagnostics["batches"] == alone.diagnostics["tiles"] > 1


def test_a_context_that_does_not_hold_what_neighbours_see_is_refused() -> None:
    with pytest.raises(ValueError, match=r"context is 6.0 Å, less than the model's receptive field of 8.0 Å"):
        tiled(context=6.0, model=message_model())


@pytest.mark.parametrize("context", [4.0, 6.5])
def test_it_is_extensive(context: float) -> None:
    atoms = silicon()
    lengths = atoms.cell.lengths()
    focus = float(lengths[0]) / 2
    one, eight = (results(tiled(focus, context), a) for a in (atoms, atoms * (2, 2, 2)))
    assert eight["energy"] == pytest.approx(8 * one["energy"], rel=1e-12)
    np.testing.assert_allclose(eight["forces"], np.tile(one["forces"], (8, 1)), atol=1e-11)
    np.testing.assert_allclose(eight["stress"], one["stress"], atol=1e-12)
    np.testing.assert_allclose(eight["stresses"], np.tile(one["stresses"] / 8, (8, 1)), atol=1e-12)


@pytest.mark.parametrize("context", [4.0, 6.5])
@pytest.mark.parametrize("name", CASES)
def test_forces_are_derivatives_of_the_sum(name: str, context: float) -> None:
    """Small displacements, which carry no atom over a border."""
    atoms = CASES[name]()
    forces = results(tiled(context=context), atoms)["forces"]
    direction = np.random.default_rng(0).normal(size=atoms.positions.shape)
    slopes = []
    for h in (2e-5, 1e-5):
        sides = []
        for step in (h, -h):
            moved = atoms.copy()
            moved.positions += step * direction
            sides.append(energy(tiled(context=context), moved))
        slopes.append((sides[0] - sides[1]) / (2 * h))
    assert (4 * slopes[1] - slopes[0]) / 3 == pytest.approx(-float((forces * direction).sum()), abs=1e-6)


def test_stress_is_a_derivative_of_the_sum() -> None:
    """Small strains, which carry no atom over a border."""
    atoms = CASES["skewed"]()
    given = results(tiled(context=6.5), atoms)
    np.testing.assert_allclose(given["stresses"].sum(0), given["stress"], atol=1e-14)
    scaled = atoms.get_scaled_positions(wrap=False)
    h = 1e-5
    for k, (a, b) in enumerate(((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))):
        sides = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[a, b] += sign * h / 2
            strain[b, a] += sign * h / 2
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ strain, scale_atoms=False)
            strained.positions = scaled @ strained.cell.array
            sides.append(energy(tiled(context=6.5), strained))
        assert (sides[0] - sides[1]) / (2 * h) / atoms.get_volume() == pytest.approx(given["stress"][k], abs=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_energies_of_the_atoms_sum_to_the_energy(name: str) -> None:
    atoms = CASES[name]()
    for settings in (TIGHT, Settings(torch.device("cpu"), torch.float64, tol=1e-2)):
        given = results(TiledEvaluator(MODEL, settings, focus=3.0, context=6.0), atoms)
        assert given["energies"].sum() == pytest.approx(given["energy"], abs=1e-10)
        assert np.abs(given["forces"].sum(0)).max() < 1e-10
        assert given["energy"] == given["free_energy"]


@pytest.mark.parametrize("name", CASES)
def test_the_order_of_the_atoms_and_lattice_translations_do_not_matter(name: str) -> None:
    atoms = CASES[name]()
    random = np.random.default_rng(1)
    order = random.permutation(len(atoms))
    given, expected = results(tiled(), atoms[order]), results(tiled(), atoms)
    per_atom = {key: value[order] for key, value in expected.items() if np.shape(value)[:1] == (len(atoms),)}
    same(given, expected | per_atom, 1e-11)
    moved = atoms.copy()
    moved.positions += (random.integers(-2, 3, size=(len(atoms), 3)) * atoms.pbc) @ atoms.cell.array
    same(results(tiled(), moved), expected, 1e-11)


def test_vectors_of_the_cell_that_are_not_periodic_do_not_matter() -> None:
    atoms = sheet()
    expected = results(tiled(), atoms)
    for third in ([0.0, 0.0, 0.0], [3.0, 1.0, 40.0]):
        other = atoms.copy()
        other.set_cell([atoms.cell[0], atoms.cell[1], third])
        same(results(tiled(), other), expected, 1e-11)


@pytest.mark.parametrize("context", [4.0, 6.5])
def test_batches_do_not_matter(context: float, monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = CASES["skewed"]()
    expected = results(tiled(3.0, context), atoms)
    for rows in (1, 100, 300):
        monkeypatch.setitem(stream.MAX_SOLVED_ATOMS, "cpu", rows)
        evaluator = tiled(3.0, context)
        same(results(evaluator, atoms), expected, 1e-12)
        assert evaluator.diagnostics["batches"] > 1


def test_memory_makes_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = bulk("Si", cubic=True) * (3, 3, 3)
    monkeypatch.setitem(stream.MAX_SOLVED_ATOMS, "cpu", 10**6)
    sizes = []
    for memory in (2 << 20, 4 << 20, 1 << 30):
        evaluator = tiled(5.0, CUTOFF, max_memory=memory)
        energy(evaluator, atoms)
        sizes.append(evaluator.diagnostics["batches"])
    assert sizes[0] > sizes[1] > sizes[2]
    with pytest.raises(ValueError, match=r"one tile contains the neighbourhoods of .* Choose a smaller focus"):
        energy(tiled(8.0, CUTOFF, max_memory=1 << 18), atoms)
    with pytest.raises(ValueError, match="results and lists"):
        energy(tiled(8.0, CUTOFF, max_memory=1 << 10), atoms)


class Interrupted(Exception):
    """Stands for whatever ends a long evaluation."""


@pytest.mark.parametrize("place", [(stream.TileBatchSolver, "_take"), (tiled_module, "add")], ids=["solving", "adding"])
def test_what_was_interrupted_goes_on(place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atoms, work = CASES["skewed"](), tmp_path / "tiles.work"
    monkeypatch.setitem(stream.MAX_SOLVED_ATOMS, "cpu", 60)
    monkeypatch.setattr(work_module, "MIN_SAVE_INTERVAL", 0.0)
    monkeypatch.setattr(work_module, "MAX_SAVE_SHARE", 1e9)
    expected = results(tiled(3.0), atoms)
    original, calls = getattr(*place), []

    def interrupted(*args: Any) -> None:
        original(*args)
        calls.append(1)
        if len(calls) == 5:
            raise Interrupted

    monkeypatch.setattr(*place, interrupted)
    with pytest.raises(Interrupted):
        results(tiled(3.0, work=work), atoms)
    assert work.exists()
    with pytest.raises(ValueError, match="another structure, model or setting"):
        results(tiled(3.0, work=work), atoms[:-1])
    evaluator = tiled(3.0, work=work)
    given = results(evaluator, atoms)
    assert 0 < evaluator.diagnostics["tiles"] < len(calls) * 10
    for name, value in expected.items():
        assert np.array_equal(given[name], value), name
    assert not work.exists()
    for damaged in (b"something else", b"PK\x03\x04 and no more"):
        work.write_bytes(damaged)
        with pytest.raises(ValueError, match="not a work file"):
            results(tiled(3.0, work=work), atoms)


def test_only_what_is_asked_for_is_given() -> None:
    atoms = skewed() * (3, 2, 2)
    assert results(tiled(), atoms, forces=False).keys() == {"energy", "free_energy", "energies"}
    given = tiled().calculate(atoms, forces=True, stress=False, changes=())
    assert given.keys() == {"energy", "free_energy", "energies", "forces"}


@pytest.mark.parametrize("name", ["focus", "context", "max_memory"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_lengths_without_a_meaning(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        Tiles(**{name: value})


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"context is 3.0 Å, less than the model's receptive field of 4.0 Å"):
        tiled(context=3.0)
    with pytest.raises(ValueError, match=r"a single tile: .* Choose a focus of at most"):
        energy(tiled(focus=6.0), silicon())
    nowhere = silicon()
    nowhere.positions[3, 1] = np.nan
    with pytest.raises(ValueError, match="positions of atoms 3 are not finite"):
        energy(tiled(focus=2.0), nowhere)
    strange = silicon()
    strange.numbers[2] = 79
    with pytest.raises(ValueError, match="contains Au"):
        energy(tiled(focus=2.0), strange)
    twice = silicon()
    twice.positions[1] = twice.positions[0]
    with pytest.raises(ValueError, match=r"are .* Å apart"):
        energy(tiled(focus=2.0), twice)
    with pytest.raises(ValueError, match="no atoms"):
        energy(tiled(), Atoms())


PERIODIC = np.ones(3, bool)


@given(st.floats(0.5, 500.0))
@example(5.43)
@example(4.05)
def test_the_focus_that_the_error_names_is_small_enough(height: float) -> None:
    with pytest.raises(ValueError, match="a single tile") as caught:
        cut(np.zeros((1, 3)), np.eye(3) * height, PERIODIC, 2.0 * height, 1.0)
    named = re.search(r"at most (\S+) Å", str(caught.value))
    assert named is not None
    focus = float(named.group(1))
    assert focus > height / 1.5 - 0.03
    assert cut(np.zeros((1, 3)), np.eye(3) * height, PERIODIC, focus, 1.0).shape.tolist() == [2, 2, 2]


def test_a_tile_that_is_not_solved_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SolveOptions", lambda tol, *_, **__: SolveOptions(tol, max_steps=2))
    with pytest.raises(ConvergenceError, match="tiles did not converge"):
        energy(tiled(), CASES["crystal"]())


def test_an_atom_alone_and_far_apart() -> None:
    far = Atoms("CHSi", positions=[[0, 0, 0], [400, 0, 0], [0, -300, 100]])
    same(results(tiled(), far), results(untiled(), far), 1e-12)
    far.positions[1] *= 100
    with pytest.raises(ValueError, match="choose a larger focus"):
        energy(tiled(), far)
    alone = Atoms("Si", positions=[[1.0, 2.0, 3.0]])
    same(results(tiled(), alone), results(untiled(), alone), 1e-12)
