"""What is no structure, or a broken one, is an error that says what was given and what to do, at every method."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atom, Atoms
from ase.build import bulk
from phonopy.structure.atoms import PhonopyAtoms
from pymatgen.core import Lattice, Molecule, Structure
from small_models import ethanol, rattled, silicon, small_calculator, small_model, stiff_model

from ase_andersonn import AndersoNN
from ase_andersonn.checkpoints.checkpoint import load_model
from ase_andersonn.lattice.model import GridConfig, GridModel
from ase_andersonn.tiles import Tiles

NAN = float("nan")
CRYSTAL = Structure(Lattice.cubic(5.43), ["Si", "Si"], [[0, 0, 0], [0.25, 0.25, 0.25]])


def with_array(name: str, values: Any) -> Atoms:
    atoms = silicon()
    atoms.arrays[name] = values
    return atoms


def without(name: str) -> Atoms:
    atoms = silicon()
    del atoms.arrays[name]
    return atoms


POSITIONS = silicon().positions
BROKEN: dict[str, tuple[Any, type[Exception], str]] = {
    "objects": (with_array("positions", POSITIONS.astype(object)), TypeError, "is of type object; .* real numbers"),
    "strings": (with_array("positions", POSITIONS.astype(str)), TypeError, r"'positions'\] is of type <U"),
    "complex": (with_array("positions", POSITIONS.astype(complex)), TypeError, "is of type complex128"),
    "a list": (with_array("positions", POSITIONS.tolist()[:7]), ValueError, r"has the shape \(7, 3\)"),
    "short positions": (with_array("positions", POSITIONS[:5]), ValueError, r"shape \(5, 3\); for 8 .* \(8, 3\)"),
    "flat positions": (with_array("positions", POSITIONS.ravel()), ValueError, r"shape \(24,\); .* \(8, 3\)"),
    "two coordinates": (with_array("positions", POSITIONS[:, :2]), ValueError, r"shape \(8, 2\)"),
    "short numbers": (with_array("numbers", np.array([14])), ValueError, "Every atom has one entry in every array"),
    "real numbers": (with_array("numbers", np.full(8, 14.5)), TypeError, "is of type float64; .* atomic numbers"),
    "symbols": (with_array("numbers", np.array(["Si"] * 8)), TypeError, r"'numbers'\] is of type <U2"),
    "no positions": (without("positions"), ValueError, "has no array 'positions'"),
    "no numbers": (without("numbers"), ValueError, "has no array 'numbers'"),
    "moments": (with_array("initial_magmoms", np.ones(3)), ValueError, r"'initial_magmoms'\] has the shape \(3,\)"),
    "moments in 2D": (with_array("initial_magmoms", np.ones((8, 2))), ValueError, r"be \(8,\) or \(8, 3\)"),
    "moments in words": (with_array("initial_magmoms", np.array(["up"] * 8)), TypeError, "is of type <U2"),
    "charges": (with_array("initial_charges", np.ones((8, 3))), ValueError, r"'initial_charges'\] has the shape"),
    "tags": (with_array("tags", np.ones(2, int)), ValueError, r"'tags'\] has the shape \(2,\)"),
    "nan": (with_array("positions", POSITIONS * NAN), ValueError, "positions of atoms 0, 1, .* are not finite"),
    "pymatgen's crystal": (CRYSTAL, TypeError, r"ase.Atoms; pymatgen.core.structure.Structure was given. .*evaluate"),
    "pymatgen's molecule": (Molecule(["O"], [[0, 0, 0]]), TypeError, "AseAtomsAdaptor"),
    "phonopy's atoms": (
        PhonopyAtoms(symbols=["Si"], cell=np.eye(3), scaled_positions=[[0, 0, 0]]),
        TypeError,
        "PhonopyAtoms was given",
    ),
    "one atom": (Atom("Si"), TypeError, "takes ase.Atoms; ase.atom.Atom was given"),
    "a list of structures": ([silicon()], TypeError, "takes ase.Atoms; list was given"),
    "a path": ("silicon.cif", TypeError, "str was given. Read files with ase.io.read"),
    "the class": (Atoms, TypeError, "the class Atoms was given"),
}
METHODS: dict[str, Callable[[AndersoNN, Any], Any]] = {
    "energy": lambda calc, atoms: calc.get_potential_energy(atoms),
    "forces": lambda calc, atoms: calc.get_forces(atoms),
    "calculate": lambda calc, atoms: calc.calculate(atoms, ["energy"]),
    "required": lambda calc, atoms: [calc.calculation_required(atoms, ["energy"]), calc.get_forces(atoms)],
    "trial_energy": lambda calc, atoms: calc.trial_energy(atoms, np.array([0])),
}


@pytest.fixture(scope="module")
def calc() -> AndersoNN:
    return small_calculator()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", BROKEN)
def test_broken_structures_are_named(calc: AndersoNN, case: str, method: str) -> None:
    given, kind, text = BROKEN[case]
    with pytest.raises(kind, match=text):
        METHODS[method](calc, given)
    calc.get_potential_energy(silicon())  # it goes on, and the next error comes with a structure already calculated


@pytest.mark.parametrize("case", [case for case, (given, *_) in BROKEN.items() if isinstance(given, Atoms)])
def test_broken_structures_of_a_batch_are_counted(calc: AndersoNN, case: str) -> None:
    given, kind, text = BROKEN[case]
    with pytest.raises(kind, match=f"structure 1.*: .*{text}"):
        calc.evaluate([silicon(), given])


@pytest.mark.parametrize("model", ["tiles", "spins"])
def test_broken_moments_of_every_evaluator(model: str) -> None:
    options: dict[str, Any] = {"tiles": Tiles(focus=3.0, context=4.0)} if model == "tiles" else {}
    calc = AndersoNN(small_model() if model == "tiles" else GridModel(GridConfig()), compile=False, **options)
    for case in ("moments", "moments in words", "short numbers", "objects"):
        given, kind, text = BROKEN[case]
        with pytest.raises(kind, match=text):
            calc.get_potential_energy(given)


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.longdouble, np.float16])
def test_positions_of_other_types_are_taken(dtype: Any) -> None:
    plain = Atoms("Si2", [[0, 0, 0], [2, 1, 0]])
    other = plain.copy()
    other.arrays["positions"] = plain.positions.astype(dtype)
    other.arrays["numbers"] = plain.numbers.astype(np.uint8)
    found = small_calculator().get_forces(other)
    np.testing.assert_allclose(found, small_calculator().get_forces(plain), atol=1e-10)
    assert small_calculator().trial_energy(other, np.arange(2)) == pytest.approx(plain_energy(plain), abs=1e-10)


def plain_energy(atoms: Atoms) -> float:
    return float(small_calculator().get_potential_energy(atoms))


def test_without_a_structure() -> None:
    calc = small_calculator()
    for method in (calc.get_potential_energy, calc.get_forces, calc.get_stress, calc.calculate):
        with pytest.raises(ValueError, match=r"no structure was given, .* calc.get_potential_energy\(atoms\)"):
            method()
    assert calc.get_property("energy", allow_calculation=False) is None
    energy = calc.get_potential_energy(silicon())
    assert calc.get_potential_energy() == energy
    assert calc.get_forces().shape == (8, 3)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (CRYSTAL, r"takes a list of structures; for one, \[atoms\]"),
        (Molecule(["O"], [[0, 0, 0]]), r"for one, \[atoms\]"),
        ("frames.xyz", "read those of 'frames.xyz' with ase.io.read first"),
        (None, "None was given"),
        (3, "3 was given"),
        ([silicon(), "a.cif"], "structure 1: .*str was given"),
    ],
    ids=str,
)
def test_what_is_no_list_of_structures(calc: AndersoNN, given: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        calc.evaluate(given)


def test_structures_of_pymatgen_in_a_batch(calc: AndersoNN) -> None:
    assert len(calc.evaluate(s for s in (CRYSTAL, silicon()))) == 2


# Input that changes no result is reported whenever it appears


@pytest.mark.parametrize("key", ["charges", "moments", "info"])
def test_charges_and_moments_set_later_are_reported(key: str) -> None:
    atoms = ethanol()
    atoms.calc = calc = small_calculator()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        energy = atoms.get_potential_energy()
    if key == "charges":
        atoms.set_initial_charges([1.0] + [0.0] * 8)
    elif key == "moments":
        atoms.set_initial_magnetic_moments([1.0] + [0.0] * 8)
    else:
        atoms.info["charge"] = 1
    done = calc.diagnostics
    with pytest.warns(UserWarning, match="the model knows no (charges|spins)"):
        assert atoms.get_potential_energy() == energy
    assert calc.diagnostics is done, "nothing was calculated anew"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        atoms.get_potential_energy()


# Rounding


def off_by(calc: AndersoNN, exact: AndersoNN, atoms: Atoms, **what: Any) -> float:
    """Error of an energy, eV/atom."""
    found, wanted = (one.evaluate([atoms], **what)[0]["energy"] for one in (calc, exact))
    return abs(float(found - wanted)) / len(atoms)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["mlearn-pbe", "universal"])
def test_rounding_stays_within_the_tolerance(name: str) -> None:
    """Energies in single precision, alone and with forces: random cells, of which float32 alone gets some wrong."""
    single, double = AndersoNN(name, compile=False), AndersoNN(name, compile=False, dtype="float64", tol=1e-12)
    raw = AndersoNN(name, compile=False, tol=1e-3)
    elements, rng, off = (3, 14, 28, 29, 42), np.random.default_rng(0), 0
    for n in [1, 2, 4, 8] * 6:
        edge = (n * rng.uniform(8.0, 40.0)) ** (1 / 3)
        cell = edge * (np.eye(3) + rng.uniform(-0.2, 0.2, (3, 3)))
        atoms = Atoms(rng.choice(elements, n), rng.uniform(size=(n, 3)) @ cell, cell=cell, pbc=True)
        assert off_by(single, double, atoms, forces=False) <= 1e-6
        assert off_by(single, double, atoms) <= 1e-6
        assert single.diagnostics["round_off"] <= 1e-6
        off += off_by(raw, double, atoms) > 1e-6
    assert off >= 6, "without the second evaluation some are further off"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_rounding_of_a_batch_and_of_forces() -> None:
    """Only the structure that needs it is evaluated in float64, with all its properties."""
    hot, calm = (rattled(bulk("Si", cubic=True), 0.02, seed) for seed in (0, 1))
    hot.positions[1] = hot.positions[0] + [0.5, 0.3, 0.1]
    calc, exact = (AndersoNN("mlearn-pbe", compile=False, dtype=dtype) for dtype in ("float32", "float64"))
    alone = calc.evaluate([calm], stress=True)[0]
    answers = calc.evaluate([calm, hot], stress=True)
    wanted = exact.evaluate([hot], stress=True)[0]
    for name in ("energy", "energies", "forces", "stress", "stresses"):
        np.testing.assert_allclose(answers[1][name], wanted[name], rtol=1e-9, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(answers[0][name], alone[name], rtol=1e-5, atol=1e-5, err_msg=name)
    assert calc.evaluate([calm, hot], forces=False)[1]["energy"] == pytest.approx(wanted["energy"], abs=1e-6)
    assert calc.get_potential_energy(hot) == pytest.approx(wanted["energy"], abs=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_rounding_follows_changed_weights() -> None:
    model = load_model("mlearn-pbe")
    calc, atoms = AndersoNN(model, compile=False, tol=1e-9), bulk("Cu")  # a tolerance that needs float64
    before = calc.get_potential_energy(atoms)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)
    fresh = AndersoNN(model, compile=False, tol=1e-9)
    atoms.rattle(1e-9)
    assert calc.get_potential_energy(atoms) == pytest.approx(fresh.get_potential_energy(atoms), abs=1e-8)
    assert abs(calc.get_potential_energy(atoms) - before) > 1e-3


def test_rounding_in_double_precision_is_no_matter() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calc = AndersoNN(stiff_model(), dtype="float64", tol=1e-16, compile=False)
        calc.get_forces(silicon())
    assert calc.diagnostics["round_off"] < 1e-13


def test_an_energy_alone_of_an_ordinary_primitive_cell_costs_no_forces() -> None:
    calc = AndersoNN("mlearn-pbe", compile=False)
    calc.get_potential_energy(bulk("Cu"))
    assert "forces" not in calc.results
