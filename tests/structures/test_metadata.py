"""Notes of disorder, charge and spin: which are refused and which are warned of, for every kind of input."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.spacegroup import crystal
from pymatgen.core import Lattice, Molecule, Structure
from pymatgen.core.periodic_table import Species
from pymatgen.io.ase import AseAtomsAdaptor

from ase_andersonn import AndersoNN, StructureClassifier
from ase_andersonn.structures import check_atoms, to_atoms
from ase_andersonn.structures.files import read_file
from ase_andersonn.structures.metadata import check_metadata, check_order, share_of
from ase_andersonn.structures.reading import structure_from
from ase_andersonn.training import read_frames

SHARED = {"0": {"Cu": 0.5, "Ni": 0.5}}


def noted(note: Any, key: str = "occupancy") -> Atoms:
    atoms = bulk("Cu").repeat((2, 1, 1))
    atoms.info[key] = note
    return atoms


@pytest.mark.parametrize(
    "note",
    [
        *(0.5, 1, "full", "0.5", None, True, "{", {}, {"coverage": 0.25}, [0.5, 0.5, 0.5], [[1], [2, 3]], [2.0, 0.5]),
        *([0, 0], [1.0, 1.0], np.eye(2), {"0": {"Cu": 1.0}}, {"0": {"Cu": "?"}}, {0: {"Cu": "."}}, {"0": 1}),
        *({"0": {"Cu": "1.0(2)"}}, {"0": {"Cu": None}}, {"0": {"Cu": 1.0, "Ni": 0.0}}, '{"0": {"Cu": 1}}'),
        {"0": {"Cu": np.float32(1.0)}},
    ],
)
def test_notes_that_say_nothing_of_disorder(note: Any) -> None:
    check_order(noted(note))


@pytest.mark.parametrize(
    "note",
    [
        *(SHARED, {0: {"Cu": 0.5}}, {"0": {"Cu": "0.5(1)"}}, {"0": {"Cu": "half"}}, {"0": {"Cu": "?", "Ni": "?"}}),
        *({"0": {"Cu": float("nan")}}, {"0": {}}, {"Cu": 0.5}, {"0": 0.25}, '{"0": {"Cu": 0.5}}'),
        *([{"Cu": 0.5, "Ni": 0.5}], [1.0, 0.5], np.array([0.0, 1.0]), ("1.0", "0.3(1)")),
    ],
)
@pytest.mark.parametrize("key", ["occupancy", "occupancies"])
def test_disorder_is_refused_with_the_key_to_delete(note: Any, key: str) -> None:
    atoms = noted(note, key)
    with pytest.raises(ValueError, match=rf'disordered.*del atoms\.info\["{key}"\]'):
        check_order(atoms)
    del atoms.info[key]
    check_order(atoms)


def test_occupancies_of_atoms_are_looked_at_as_well(tmp_path: Path) -> None:
    """As ASE reads them from a PDB file."""
    atoms = molecule("H2O")
    write(tmp_path / "a.pdb", atoms)
    (whole,) = read_file(tmp_path / "a.pdb")
    check_order(whole)
    whole.arrays["occupancy"][1] = 0.5
    with pytest.raises(ValueError, match=r'atom 1, H 0\.5.*del atoms\.arrays\["occupancy"\]'):
        check_order(whole)


def test_kinds_of_which_no_atom_is_left_do_not_count() -> None:
    atoms = crystal(["Na", "Cl"], [(0, 0, 0), (0.5, 0.5, 0.5)], spacegroup=225, cellpar=[5.64] * 3 + [90] * 3)
    atoms.info["occupancy"] = {"0": {"Na": 1.0}, "1": {"Cl": 0.9}}
    with pytest.raises(ValueError, match=r"Cl 0\.9"):
        check_order(atoms)
    check_order(atoms[atoms.arrays["spacegroup_kinds"] == 0])


@pytest.mark.parametrize(("text", "share"), [("?", 1.0), (".", 1.0), ("1.0(2)", 1.0), ("0.25(3)", 0.25), (0.5, 0.5)])
def test_occupancies_of_a_cif(text: Any, share: float) -> None:
    assert share_of(text) == share


def test_every_way_to_an_answer_refuses_disorder(tmp_path: Path) -> None:
    """Shared by two species as ASE reads it from a CIF, and partly empty; as Atoms, as pymatgen's, and labelled."""
    structure = Structure.from_spacegroup("Fm-3m", Lattice.cubic(3.58), [{"Cu": 0.5, "Ni": 0.5}], [[0, 0, 0]])
    structure.to(str(tmp_path / "a.cif"))
    atoms = read(tmp_path / "a.cif")
    calc, classifier = AndersoNN(compile=False), StructureClassifier("electronic")
    for tiles in (None, "on"):
        with pytest.raises(ValueError, match="disordered"):
            AndersoNN(compile=False, tiles=tiles).get_potential_energy(atoms)  # type: ignore[arg-type]
    empty = Structure(Lattice.cubic(3.0), [{"Cu": 0.7}], [[0, 0, 0]])
    for given in (atoms, structure, empty):
        with pytest.raises(ValueError, match="disordered"):
            calc.evaluate([given])
        with pytest.raises(ValueError, match="disordered"):
            structure_from(given)
    bad, tagged, good = classifier.predict_many([atoms, noted(0.5), bulk("Cu")], progress_bar=False)
    assert isinstance(bad, ValueError)
    assert not isinstance(tagged, Exception)
    assert not isinstance(good, Exception)
    with pytest.raises(ValueError, match="disordered"):
        check_atoms(atoms)
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0)
    write(tmp_path / "a.extxyz", atoms)
    with pytest.raises(ValueError, match=r"a\.extxyz, frame 0: .*disordered"):
        read_frames([str(tmp_path / "a.extxyz")])


def of(**info: Any) -> Atoms:
    atoms = molecule("H2O")
    atoms.info.update(info)
    return atoms


def test_charges_and_spins_that_are_named() -> None:
    for charge, wanted in ((1, 1.0), ("-2", -2.0), ("2+", 2.0), ("-", -1.0), ([0.5, 0.5], 1.0), (np.float64(-1), -1.0)):
        for key in ("charge", "total_charge"):
            state = check_metadata(of(**{key: charge}))
            assert state.charge == wanted
            assert f'atoms.info["{key}"] changes nothing' in " ".join(state.ignored())
    for nothing in (0, "neutral", None, float("nan"), [0.5, -0.5], "", {}):
        assert list(check_metadata(of(charge=nothing)).ignored()) == []
    for key, spin in (("spin", 3), ("spin", "2"), ("spin", [1, -1]), ("total_spin", 2), ("multiplicity", 3)):
        assert f'atoms.info["{key}"] changes nothing' in " ".join(check_metadata(of(**{key: spin})).ignored())
    for nothing in (
        {"spin": 0},
        {"spin": 1},
        {"spin_multiplicity": 1},
        {"spin": None},
        {"spin": "up"},
        {"spin": np.nan},
    ):
        assert list(check_metadata(of(**nothing)).ignored()) == []


def test_charge_and_spin_of_pymatgen_are_kept() -> None:
    oxygen = Molecule(["O", "O"], [[0, 0, 0], [0, 0, 1.2]], charge=-2, spin_multiplicity=3)
    state = check_metadata(to_atoms(oxygen))
    assert state.charge == -2.0
    assert "spin_multiplicity" in state.spin_note
    own = check_metadata(AseAtomsAdaptor.get_atoms(oxygen))  # attributes of the atoms, which no copy has
    assert (own.charge, "spin_multiplicity" in own.spin_note) == (-2.0, True)
    plain = to_atoms(Molecule(["O", "H", "H"], [[0, 0, 0], [0, 0, 1.0], [0, 0.9, -0.3]]))
    assert list(check_metadata(plain).ignored()) == []
    iron = [Species("Fe", 2, spin=5), Species("Fe", 2, spin=-5), Species("O", -2), Species("O", -2)]
    lattice = Structure(Lattice.cubic(4.2), iron, [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0], [0, 0.5, 0]])
    assert to_atoms(lattice).get_initial_magnetic_moments().tolist() == [5, -5, 0, 0]
    assert "knows no spins" in " ".join(check_metadata(to_atoms(lattice)).ignored())
    assert check_metadata(to_atoms(Structure(Lattice.cubic(4.2), ["Na"], [[0, 0, 0]], charge=1))).charge == 1.0


def test_what_pymatgen_cannot_hand_over_is_a_clear_error() -> None:
    odd = Structure(Lattice.cubic(4.2), ["Na"], [[0, 0, 0]], site_properties={"magmom": ["up"]})
    with pytest.raises(ValueError, match=r"Na1 cannot be made into ase\.Atoms"):
        to_atoms(odd)


@pytest.mark.parametrize("info", [{"charge": 1}, {"spin": 3}, {"spin_multiplicity": 3}])
def test_calculator_and_classifier_warn_once(info: dict[str, Any]) -> None:
    atoms = of(**info)
    calc, classifier = AndersoNN("organic", compile=False), StructureClassifier("polarity")
    key = next(iter(info))
    for ask in (lambda: calc.evaluate([atoms]), lambda: classifier.predict_many([atoms, atoms], progress_bar=False)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ask()
            ask()
        assert sum(f'atoms.info["{key}"] changes nothing' in str(warning.message) for warning in caught) == 1
