"""The calculator's argument `tiles`."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from small_models import message_model, small_model

from ase_andersonn import AndersoNN
from ase_andersonn.engine import evaluator as direct_evaluator
from ase_andersonn.lattice.model import GridConfig, GridModel
from ase_andersonn.structures.neighbors import PairCutoffs, edges_of
from ase_andersonn.tiles import Tiles, auto
from ase_andersonn.tiles.accuracy import context_for
from ase_andersonn.tiles.auto import most_neighbors
from ase_andersonn.tiles.memory import row_bytes, tape_bytes


def silicon(repeats: int) -> Atoms:
    atoms = bulk("Si", cubic=True).repeat(repeats)
    atoms.rattle(0.05, seed=0)
    return atoms


def make(**options: object) -> AndersoNN:
    return AndersoNN(small_model(), dtype="float64", tol=1e-14, compile=False, **options)  # type: ignore[arg-type]


def test_tiled_energies_are_close_to_direct_ones_with_diagnostics() -> None:
    atoms = silicon(4)
    tiled, whole = make(tiles="on"), make()
    assert tiled.get_potential_energy(atoms) == pytest.approx(whole.get_potential_energy(atoms), abs=1e-4 * len(atoms))
    assert tiled.diagnostics["tiles"] >= 1
    with pytest.raises(KeyError, match="not computed with tiles"):
        tiled.diagnostics["extrapolation"]
    assert tiled.diagnostics["context"] >= small_model().cutoff


def test_a_message_model_chooses_a_context_of_its_receptive_field() -> None:
    """Close to the untiled energy, also where a rough accuracy would allow the smallest context."""
    model, atoms = message_model(), silicon(4)
    assert model.receptive_field == 2 * model.cutoff
    assert context_for(model, 1e3, atoms) == model.receptive_field
    assert context_for(model, 1e-7, atoms) > model.receptive_field
    tiled, whole = (AndersoNN(model, dtype="float64", tol=1e-14, compile=False, tiles=t) for t in ("on", None))
    assert tiled.get_potential_energy(atoms) == pytest.approx(whole.get_potential_energy(atoms), abs=1e-4 * len(atoms))
    assert tiled.diagnostics["context"] >= model.receptive_field


def test_memory_of_messages_is_estimated() -> None:
    message, small = message_model(), small_model()
    for forces in (False, True):
        ratio = row_bytes(message, 48, forces=forces) / row_bytes(small, 48, forces=forces)
        assert (ratio > 1.1) == forces
    assert tape_bytes(message, 48) > 1.2 * tape_bytes(small, 48)


def test_given_lengths_are_used() -> None:
    calc = make(tiles=Tiles(focus=6.0, context=8.0))
    calc.get_forces(silicon(4))
    assert calc.diagnostics["context"] == 8.0


def test_auto_is_direct_if_it_fits_in_memory() -> None:
    atoms = silicon(7)
    calc = make(tiles="auto")
    assert calc.get_potential_energy(atoms) == pytest.approx(make().get_potential_energy(atoms), rel=1e-12)
    assert not calc.diagnostics["tiled"]
    assert 0 < calc.diagnostics["memory_estimate"] < calc.diagnostics["memory_available"]


def test_auto_cuts_where_it_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "available_memory", lambda device: 2**20)
    atoms = silicon(7)
    calc = make(tiles="auto")
    energy = calc.get_potential_energy(atoms)
    assert calc.diagnostics["tiled"]
    assert calc.diagnostics["memory_estimate"] > calc.diagnostics["memory_available"] == 2**20
    assert energy == pytest.approx(make().get_potential_energy(atoms), abs=1e-4 * len(atoms))


def test_auto_evaluates_many_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    calc, frames = make(tiles="auto"), [silicon(1 + k % 2) for k in range(6)]
    sizes: list[int] = []
    graph_from_atoms = direct_evaluator.graph_from_atoms

    def counted(atoms: list[Atoms], *args: Any, **options: Any) -> Any:
        sizes.append(len(atoms))
        return graph_from_atoms(atoms, *args, **options)

    monkeypatch.setattr(direct_evaluator, "graph_from_atoms", counted)
    found = calc.evaluate(frames, stress=True)
    assert sizes == [6]
    for given, atoms in zip(found, frames, strict=True):
        expected = make().evaluate([atoms], stress=True)[0]
        assert given.keys() == expected.keys()
        np.testing.assert_allclose(given["energy"], expected["energy"], atol=1e-8)
        np.testing.assert_allclose(given["forces"], expected["forces"], atol=1e-5)
    assert calc.evaluate([]) == []


def test_auto_evaluates_what_does_not_fit_by_tiles_and_keeps_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "available_memory", lambda device: 2**20)
    monkeypatch.setattr(auto, "MAX_ATOMS_UNCHECKED", 100)
    frames = [silicon(2), silicon(3), bulk("Si", cubic=True), silicon(3)]
    calc = AndersoNN(small_model(), dtype="float64", tol=1e-8, compile=False, tiles="auto")
    found = calc.evaluate(frames, forces=False)
    assert calc.diagnostics["tiled"]
    alone = AndersoNN(small_model(), dtype="float64", tol=1e-8, compile=False).evaluate(frames, forces=False)
    for given, expected, atoms in zip(found, alone, frames, strict=True):
        assert len(given["energies"]) == len(atoms)
        assert given["energy"] == pytest.approx(expected["energy"], abs=1e-3 * len(atoms))


def test_a_choice_stays_while_the_structure_is_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = [2**40]
    monkeypatch.setattr(auto, "available_memory", lambda device: memory[-1])
    calc, atoms = make(tiles="auto"), silicon(7)
    calc.get_potential_energy(atoms)
    memory.append(2**20)
    for _ in range(2):
        calc.get_forces(atoms)
        assert not calc.diagnostics["tiled"]
        atoms.rattle(0.01, seed=1)
        calc.reset()
    calc.get_potential_energy(silicon(8))
    assert calc.diagnostics["tiled"]


def test_lengths_that_were_chosen_stay_while_the_structure_is_alike() -> None:
    calc, atoms = make(tiles="on"), silicon(4)
    calc.get_potential_energy(atoms)
    chosen = calc.diagnostics["focus"], calc.diagnostics["context"]
    atoms.rattle(0.3, seed=1)
    del atoms[3]
    calc.reset()
    calc.get_potential_energy(atoms)
    assert (calc.diagnostics["focus"], calc.diagnostics["context"]) == chosen
    calc.get_potential_energy(silicon(6))
    assert (calc.diagnostics["focus"], calc.diagnostics["context"]) != chosen


def test_neighbours_of_a_crystal_are_not_underestimated() -> None:
    atoms = bulk("Cu", cubic=True).repeat(8)
    assert 54 <= most_neighbors(atoms, 5.5) <= 2.0 * 54


def test_neighbours_are_those_within_the_cutoffs_of_pairs() -> None:
    atoms = bulk("CsCl", "cesiumchloride", a=4.1, cubic=True).repeat(12)
    table = np.full((119, 119), 3.0)
    table[17, 55] = table[55, 17] = 4.0
    cutoffs = PairCutoffs(table)
    assert 8 <= most_neighbors(atoms, cutoffs) <= 2.0 * 8
    table[55, 55] = 4.5  # caesium has more neighbours than chlorine then
    edges = edges_of(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, cutoffs)
    most = int(np.bincount(edges.center).max())
    assert most == 8 + 6
    assert most <= most_neighbors(atoms, cutoffs) <= 2.0 * most
    assert most_neighbors(atoms, 6.0) > 2.0 * most


def test_trial_energies_and_commits_with_tiles() -> None:
    atoms = silicon(4)
    calc = make(tiles=Tiles(focus=6.0, context=8.0))
    before = calc.trial_energy(atoms, np.arange(len(atoms)))
    calc.commit(True)
    trial = atoms.copy()
    trial.positions[3] += 0.1
    after = calc.trial_energy(trial, np.array([3]))
    assert after != before
    calc.commit(False)
    assert calc.trial_energy(atoms, np.array([3])) == pytest.approx(before, abs=1e-10)


def test_copies_and_pickles_work() -> None:
    atoms = silicon(4)
    calc = make(tiles=Tiles(focus=6.0, context=8.0))
    energy = calc.get_potential_energy(atoms)
    for other in (copy.deepcopy(calc), pickle.loads(pickle.dumps(calc))):
        assert other.get_potential_energy(atoms) == pytest.approx(energy, abs=1e-9)


def test_two_atoms_on_one_site_are_named() -> None:
    atoms = silicon(5)
    atoms.positions[777] = atoms.positions[123]
    with pytest.raises(ValueError, match="atoms 123 and 777 are"):
        make(tiles=Tiles(focus=6.0, context=8.0)).get_potential_energy(atoms)


def test_wrong_words_are_refused() -> None:
    with pytest.raises(ValueError, match=r"tiles is 'yes'; it is None, \"on\", \"auto\", or Tiles"):
        make(tiles="yes")


def test_a_grid_has_tiles_of_its_own() -> None:
    with pytest.raises(ValueError, match="a GridModel has tiles of its own"):
        AndersoNN(GridModel(GridConfig()), tiles="on")
