"""Warnings about structures outside the training domain: elements, distances, charges and moments."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from small_models import ethanol, rattled, silicon, slab, small_calculator, small_model

from ase_andersonn import AndersoNN
from ase_andersonn.potentials import training_domain as domain_warnings
from ase_andersonn.structures.neighbors import neighbor_edges


def known(min_distance: float | None = 2.0, **card: Any) -> AndersoNN:
    """A calculator whose model has this card, and a shortest silicon distance in Å."""
    model = small_model()
    if min_distance:
        model.set_min_distance({(14, 14): min_distance})
    model.card = card
    return AndersoNN(model, dtype="float64", compile=False)


@contextmanager
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_unknown_combinations_of_known_elements_are_said_once() -> None:
    calc = known(None, combinations=[[6, 8, 1], [14]])
    with no_warnings():
        calc.get_potential_energy(ethanol())
        calc.get_potential_energy(bulk("Si"))
    mixed = r"not trained on structures that hold the elements \['Cu', 'O'\] together"
    with pytest.warns(UserWarning, match=mixed) as warned:
        calc.get_potential_energy(slab())
    assert warned[0].filename == __file__, "it is this line that asked"
    with no_warnings():
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
def test_structures_outside_the_training_data_are_warned_of(card: dict[str, Any], structure: Atoms, text: str) -> None:
    calc = known(None, **card)
    with pytest.warns(UserWarning, match=text):
        calc.get_potential_energy(structure)


@pytest.mark.parametrize("many", [False, True])
def test_atoms_nearer_than_any_in_training_are_said_once(many: bool) -> None:
    calc, atoms, other = known(training={}), silicon(), silicon()
    atoms.positions[1] = atoms.positions[0] + [1.9, 0.0, 0.0]
    text = r"atoms 0 \(Si\) and 1 \(Si\) are 1.9 Å apart; nearer than 2 Å the model was not trained on such pairs"
    with no_warnings():
        calc.get_potential_energy(other)
        calc.evaluate([other])
    with pytest.warns(UserWarning, match=text) as warned:
        calc.evaluate([other, atoms]) if many else calc.get_potential_energy(atoms)
    assert warned[0].filename == __file__
    with no_warnings():
        calc.get_potential_energy(rattled(atoms, 0.01))


def test_atoms_that_come_too_near_on_a_trajectory_are_said() -> None:
    calc, atoms = known(training={}), silicon()
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
        known(training={}, isolated=[]).get_potential_energy(lone)
    with no_warnings():
        known(training={}, isolated=[14]).get_potential_energy(lone)
        known(training={}).get_potential_energy(lone)  # nothing is known of what was learnt


def test_atoms_whose_neighbors_the_labels_do_not_know_are_said() -> None:
    """Labels up to 2.7 Å know little more than the bonds of silicon, at 2.35 Å."""
    atoms = bulk("Si")
    with pytest.warns(UserWarning, match=r"of atom [01] \(Si\) is 2.35 Å away, .* beyond 2.7 Å: its cohesion"):
        known(training={}, label_cutoff=2.7).get_potential_energy(atoms)
    with no_warnings():
        known(training={}, label_cutoff=3.0).get_potential_energy(atoms)
        known(training={}, label_cutoff=2.7).get_potential_energy(Atoms("Si", cell=[20.0] * 3, pbc=True))


def test_warnings_of_a_structure_among_others_name_it() -> None:
    lone, near, other = Atoms("Si", cell=[20.0] * 3, pbc=True), silicon(), silicon()
    near.positions[1] = near.positions[0] + [1.9, 0.0, 0.0]
    near.info["name"] = "crystals/near.cif"
    with pytest.warns(UserWarning, match=": ") as warned:
        known(training={}, isolated=[], periodic=[False]).evaluate([other, lone, near])
    texts = sorted(str(warning.message) for warning in warned)
    assert [text.partition(": ")[0] for text in texts] == ["Si3CSi4", "Si", "crystals/near.cif"]
    assert all(text.endswith("Of other structures of which the same is true, nothing more is said.") for text in texts)
    with pytest.warns(UserWarning, match=r"^crystals/near.cif: atoms 0 \(Si\) and 1"):
        known(training={}).get_potential_energy(near)


def test_warnings_of_a_lone_atom_do_not_contradict_each_other() -> None:
    with pytest.warns(UserWarning, match="not trained on") as warned:
        AndersoNN("mlearn-pbe", compile=False).get_potential_energy(Atoms("Si"))
    texts = " ".join(str(warning.message) for warning in warned)
    assert len(warned) == 2
    assert "molecules and clusters" in texts
    assert "has no neighbour within" in texts
    assert "nearest neighbour at" not in texts


@pytest.mark.parametrize("many", [False, True])
def test_unknown_elements_are_an_error_before_any_warning(many: bool) -> None:
    """Where the element's number is beyond those the model counts, and where it is between them."""
    for symbol in ("He", "Au"):
        atoms = Atoms(["Si", symbol], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.5]])
        calc = known(training={}, isolated=[])
        with no_warnings(), pytest.raises(ValueError, match=f"contains {symbol}; this model knows"):
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
    with no_warnings():
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
    with no_warnings():
        known(None, **card).get_potential_energy(structure)


def test_unknown_combinations_are_said_of_batches_too() -> None:
    calc = known(None, combinations=[[6, 8, 1], [14]])
    with pytest.warns(UserWarning, match=r"\['Cu', 'O'\] together"):
        calc.evaluate([silicon(), slab()], forces=False)


def test_neighbours_are_sought_only_while_a_pair_may_still_be_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    sought: list[int] = []

    def counted(*args: Any) -> Any:
        sought.append(len(args[0]))
        return neighbor_edges(*args)

    monkeypatch.setattr(domain_warnings, "neighbor_edges", counted)
    atoms = slab()
    atoms.set_initial_magnetic_moments(np.ones(len(atoms)))
    calc = known(None, combinations=[sorted(set(atoms.numbers.tolist()) - {8}), [8]])
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
