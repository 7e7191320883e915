"""Conformance checks that any ASE calculator can be put through.

    check_calculator(EMT(), bulk("Cu", cubic=True))

runs all of them and raises one `ConformanceError` that lists what failed; each check can also be called by itself.
A check works on copies of the structure it is given. `rattle` the structure, so that forces do not vanish by symmetry.
"""

import contextlib
import copy
import pickle
from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from numpy.typing import NDArray

from ase_andersonn.properties import RESULTS, check_shapes

Floats = NDArray[np.float64]
SCALARS = ("energy", "free_energy")


class ConformanceError(AssertionError):
    """A calculator does not keep ASE's contract."""


def check_calculator(
    calc: Any,
    atoms: Atoms,
    *,
    tol: float = 1e-4,
    repeat: float = 1e-6,
    displacement: float = 1e-3,
    strain: float = 1e-4,
    skip: Collection[str] = (),
) -> None:
    """All checks of this module, one after the other: results, sums, forces, stress, atoms, repeatability, copies.

    Args:
        calc: an ASE calculator.
        atoms: a structure that it can compute.
        tol: largest error of forces and stress against finite differences, relative to the largest component.
        repeat: largest difference of two calculations of one structure, eV/atom and eV/Å; 0 asks for the same bits.
        displacement: Å by which atoms are moved for finite differences.
        strain: strain for finite differences.
        skip: names of checks to leave out.

    Raises:
        ValueError: if `skip` names no check.
        ConformanceError: if a check failed, or the calculator raised an error in it; all failures are listed.
    """
    checks: dict[str, Callable[[], None]] = {
        "results": lambda: check_results(calc, atoms),
        "sums": lambda: check_sums(calc, atoms, tol=tol),
        "forces": lambda: check_forces(calc, atoms, tol=tol, displacement=displacement),
        "stress": lambda: check_stress(calc, atoms, tol=tol, strain=strain),
        "atoms": lambda: check_atoms_untouched(calc, atoms),
        "repeatability": lambda: check_repeatable(calc, atoms, tol=repeat),
        "copies": lambda: check_copies(calc, atoms, tol=repeat),
    }
    if unknown := set(skip) - set(checks):
        raise ValueError(f"skip names {sorted(unknown)}; the checks are {list(checks)}.")
    failures, causes = [], []
    for name in (name for name in checks if name not in skip):
        try:
            checks[name]()
        except Exception as error:
            kind = "" if isinstance(error, ConformanceError) else f"{type(error).__name__}: "
            failures.append(f"{name}: {kind}{error}")
            causes.append(error)
    if failures:
        text = "\n".join(f"- {failure}" for failure in failures)
        raise ConformanceError(f"{type(calc).__name__} failed {len(failures)} checks:\n{text}") from causes[0]


def check_results(calc: Any, atoms: Atoms) -> None:
    """Every implemented property has ASE's shape and type and is finite; there is no property that ASE does not know.

    Only stress may be refused (`PropertyNotImplementedError`), and only where the structure is not periodic in three
    directions.

    Raises:
        ConformanceError: otherwise.
    """
    values = computed(calc, atoms)
    for name, value in values.items():
        given = np.asarray(value)
        if name in SCALARS and not isinstance(value, float):
            _fail(f"{name} is a {type(value).__name__}, not a float")
        if name not in SCALARS and not isinstance(value, np.ndarray):
            _fail(f"{name} is a {type(value).__name__}, not a numpy array")
        if given.dtype != np.float64:
            _fail(f"{name} has the dtype {given.dtype}, not float64")
        if not np.isfinite(given).all():
            _fail(f"{name} is not finite")
    try:
        sizes = check_shapes({name: np.asarray(value) for name, value in values.items()}, RESULTS)
    except ValueError as error:
        raise ConformanceError(str(error)) from error
    if sizes.get("n_atoms", len(atoms)) != len(atoms):
        _fail(f"results are for {sizes['n_atoms']} atoms, the structure has {len(atoms)}")
    try:
        calc.export_properties()
    except (KeyError, ValueError, TypeError) as error:
        raise ConformanceError(f"calc.export_properties() refuses the results: {error!r}") from error


def check_sums(calc: Any, atoms: Atoms, *, tol: float = 1e-6) -> None:
    """`Σ_i energies_i = energy` and `Σ_i stresses_i = stress`, where the parts are implemented.

    Args:
        calc: an ASE calculator.
        atoms: a structure.
        tol: largest difference relative to the largest component of the whole, or to 1 eV or 1 eV/Å³ if that is larger.

    Raises:
        ConformanceError: otherwise.
    """
    values = computed(calc, atoms)
    for parts, whole in (("energies", "energy"), ("stresses", "stress")):
        if parts in values and whole in values:
            error = _largest(np.sum(values[parts], axis=0) - values[whole])
            if not error <= tol * max(_largest(values[whole]), 1.0):
                _fail(f"the sum of {parts} differs from {whole} by {error:.1e}")


def check_forces(
    calc: Any, atoms: Atoms, *, tol: float = 1e-4, displacement: float = 1e-3, indices: Iterable[int] | None = None
) -> None:
    """`F = −∂E/∂x` by central differences.

    Args:
        calc: an ASE calculator.
        atoms: a structure.
        tol: largest error relative to the largest component of the forces.
        displacement: Å.
        indices: atoms to be moved; all where not given.

    Raises:
        ConformanceError: otherwise.
    """
    error = force_error(calc, atoms, displacement=displacement, indices=indices)
    if not error <= tol:
        _fail(f"forces differ from finite differences by {error:.1e} of the largest force; allowed are {tol:.1e}")


def check_stress(calc: Any, atoms: Atoms, *, tol: float = 1e-4, strain: float = 1e-4) -> None:
    """`σ = (1/V) ∂E/∂ε` by central differences.

    Args:
        calc: an ASE calculator; nothing is checked where it has no stress.
        atoms: a structure; nothing is checked where it is not periodic in three directions.
        tol: largest error relative to the largest component of the stress.
        strain: strain of the cell.

    Raises:
        ConformanceError: otherwise.
    """
    if "stress" not in calc.implemented_properties or not atoms.pbc.all():
        return
    error = stress_error(calc, atoms, strain=strain)
    if not error <= tol:
        _fail(f"stress differs from finite differences by {error:.1e} of its largest component; allowed are {tol:.1e}")


def force_error(calc: Any, atoms: Atoms, *, displacement: float = 1e-3, indices: Iterable[int] | None = None) -> float:
    """`max |F − F_fd| / max |F|`, with `F_fd` extrapolated from central differences of two displacements.

    Args:
        calc: an ASE calculator.
        atoms: a structure.
        displacement: Å, the larger of the two.
        indices: atoms to be moved; all where not given.
    """
    moved = list(range(len(atoms)) if indices is None else indices)
    copied = _attached(atoms, calc)
    forces = copied.get_forces(apply_constraint=False)
    consistent = "free_energy" in calc.implemented_properties

    def numerical(eps: float) -> Floats:
        return np.asarray(calculate_numerical_forces(copied, eps=eps, iatoms=moved, force_consistent=consistent))

    return _relative(forces[moved], _extrapolated(numerical, displacement), _largest(forces))


def stress_error(calc: Any, atoms: Atoms, *, strain: float = 1e-4) -> float:
    """`max |σ − σ_fd| / max |σ|`, with `σ_fd` extrapolated from central differences of two strains.

    Args:
        calc: an ASE calculator.
        atoms: a structure that is periodic in three directions.
        strain: the larger of the two.
    """
    copied = _attached(atoms, calc)
    stress = copied.get_stress(apply_constraint=False)
    consistent = "free_energy" in calc.implemented_properties

    def numerical(eps: float) -> Floats:
        return np.asarray(calculate_numerical_stress(copied, eps=eps, force_consistent=consistent))

    return _relative(stress, _extrapolated(numerical, strain), _largest(stress))


def check_atoms_untouched(calc: Any, atoms: Atoms) -> None:
    """A calculation writes nothing into the user's structure, and results that are written into do not change.

    Raises:
        ConformanceError: otherwise.
    """
    used = _attached(atoms, calc)
    before = _snapshot(used)
    for name in _properties(calc, used):
        calc.get_property(name, used)
    if _snapshot(used) != before:
        _fail("a calculation changed the structure it was given")
    kept = {name: np.array(value) for name, value in calc.results.items() if name in _properties(calc, used)}
    for name in kept:
        result = calc.get_property(name, used)
        if isinstance(result, np.ndarray):
            result += 1.0
    for name, value in kept.items():
        if not np.array_equal(calc.get_property(name, used), value):
            _fail(f"writing into the {name} that were returned changes the calculator's results")


def check_repeatable(calc: Any, atoms: Atoms, *, tol: float = 1e-6) -> None:
    """A structure has the same energy and forces after another one was computed.

    Args:
        calc: an ASE calculator.
        atoms: a structure.
        tol: largest difference, eV/atom and eV/Å.

    Raises:
        ConformanceError: otherwise.
    """
    first = computed(calc, atoms)
    other = atoms.copy()
    other.rattle(0.02, seed=1)
    computed(calc, other)
    _compare(first, computed(calc, atoms), len(atoms), tol, "after another structure was computed")


def check_copies(calc: Any, atoms: Atoms, *, tol: float = 1e-6) -> None:
    """`copy.deepcopy` and `pickle` give calculators with the same results, and leave the original as it was.

    Args:
        calc: an ASE calculator.
        atoms: a structure.
        tol: largest difference, eV/atom and eV/Å.

    Raises:
        ConformanceError: otherwise.
    """
    first = computed(calc, atoms)
    other = atoms.copy()
    other.rattle(0.02, seed=2)
    for way, copied in (("deepcopy", copy.deepcopy(calc)), ("pickle", pickle.loads(pickle.dumps(calc)))):
        computed(copied, other)
        _compare(first, computed(copied, atoms), len(atoms), tol, f"from a copy made by {way}")
    _compare(first, computed(calc, atoms), len(atoms), tol, "once copies of the calculator were used")


def computed(calc: Any, atoms: Atoms) -> dict[str, Any]:
    """The properties of `fields.RESULTS` that a calculator has for a structure.

    Raises:
        ConformanceError: if it refuses a property that it implements for such a structure.
    """
    copied = atoms.copy()
    values = {}
    for name in _properties(calc, atoms):
        try:
            values[name] = calc.get_property(name, copied)
        except PropertyNotImplementedError as error:
            raise ConformanceError(f"{name} is listed as implemented, but refused: {error}") from error
    for name in {"stress", "stresses"} & set(calc.implemented_properties) - set(values):
        with contextlib.suppress(PropertyNotImplementedError):
            values[name] = calc.get_property(name, copied)
    return values


def _properties(calc: Any, atoms: Atoms) -> list[str]:
    """What a calculator has to give for a structure, of the properties in `fields.RESULTS`."""
    names = [entry.name for entry in RESULTS if entry.name in calc.implemented_properties]
    return names if atoms.pbc.all() else [name for name in names if not name.startswith("stress")]


def _attached(atoms: Atoms, calc: Any) -> Atoms:
    copied: Atoms = atoms.copy()
    copied.calc = calc
    return copied


def _extrapolated(numerical: Callable[[float], Floats], step: float) -> Floats:
    """Richardson's extrapolation of central differences, an error of fourth order in the step."""
    result: Floats = (4.0 * numerical(0.5 * step) - numerical(step)) / 3.0
    return result


def _relative(given: Floats, expected: Floats, scale: float) -> float:
    """The largest difference, relative to a scale; absolute where both vanish by symmetry."""
    return _largest(given - expected) / (scale if scale > 1e-9 else 1.0)


def _largest(values: Any) -> float:
    return float(np.abs(values).max(initial=0.0))


def _snapshot(atoms: Atoms) -> bytes:
    arrays = {name: values.tobytes() for name, values in atoms.arrays.items()}
    constraints = [constraint.todict() for constraint in atoms.constraints]
    return pickle.dumps((arrays, atoms.cell.array.tobytes(), atoms.pbc.tobytes(), atoms.info, constraints))


def _compare(first: dict[str, Any], second: dict[str, Any], n_atoms: int, tol: float, when: str) -> None:
    for name in first.keys() & second.keys() & {"energy", "forces"}:
        difference = _largest(np.subtract(first[name], second[name])) / (n_atoms if name == "energy" else 1)
        if not difference <= tol:
            unit = "eV/atom" if name == "energy" else "eV/Å"
            _fail(f"{name} differ by {difference:.1e} {unit} {when}; allowed are {tol:.1e}")


def _fail(text: str) -> None:
    raise ConformanceError(text)
