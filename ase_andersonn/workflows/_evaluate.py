"""Energies, forces and stresses of many structures by any ASE calculator, in batches where it has them.

A calculator is batched if it has a method `evaluate(structures, *, forces, stress)` that returns a dictionary of
results for each structure, as `AndersoNN` does.
"""

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

Results = dict[str, Any]
"""`energy` (eV), where asked for `forces` [n_atoms, 3] (eV/Å) and `stress` [6] (eV/Å³)."""


def is_batched(calc: Any) -> bool:
    """Whether a calculator evaluates several structures at once."""
    return callable(getattr(calc, "evaluate", None))


def evaluate_each(
    structures: Sequence[Atoms], calc: Any, *, forces: bool = True, stress: bool = False
) -> list[Results | Exception]:
    """Results of each structure, or the error met with it; one bad structure does not spoil the others.

    Args:
        structures: the calculator may keep them, and nothing is written to them.
        calc: any ASE calculator.
        forces: whether forces are wanted.
        stress: whether stress is wanted.
    """
    if len(structures) > 1 and is_batched(calc):
        try:
            found = calc.evaluate(structures, forces=forces, stress=stress)
        except Exception:  # of which structure is found by halving
            half = len(structures) // 2
            return [
                *evaluate_each(structures[:half], calc, forces=forces, stress=stress),
                *evaluate_each(structures[half:], calc, forces=forces, stress=stress),
            ]
        return list(found)
    return [_evaluate_one(atoms, calc, forces, stress) for atoms in structures]


def evaluate_all(structures: Sequence[Atoms], calc: Any, *, forces: bool = True, stress: bool = False) -> list[Results]:
    """Results of each structure; the first error met is raised."""
    found = evaluate_each(structures, calc, forces=forces, stress=stress)
    for answer in found:
        if isinstance(answer, Exception):
            raise answer
    return [answer for answer in found if not isinstance(answer, Exception)]


def _evaluate_one(atoms: Atoms, calc: Any, forces: bool, stress: bool) -> Results | Exception:
    names = ["energy", *(["forces"] if forces else []), *(["stress"] if stress else [])]
    try:
        return {name: calc.get_property(name, atoms) for name in names[::-1]}  # stress first: one calculation for all
    except Exception as error:
        return error


def with_results(atoms: Atoms, results: Results) -> Atoms:
    """A copy of the structure whose calculator holds the results."""
    copied: Atoms = atoms.copy()
    kept = {name: results[name] for name in ("energy", "forces", "stress") if name in results}
    copied.calc = SinglePointCalculator(copied, **kept)
    return copied


def read_structure(source: Any, *, periodic: bool = False) -> Atoms:
    """A structure of one's own from ASE, pymatgen, phonopy, or a path.

    Args:
        source: see `structures.reading.structure_from`.
        periodic: whether it has to repeat in three directions.

    Raises:
        FileNotFoundError, TypeError: see `structures.reading.structure_from`.
        ValueError: for what has no energy (empty, not finite, two atoms on one site), or is not periodic.
    """
    from ase_andersonn.structures.convert import check_atoms  # loads torch
    from ase_andersonn.structures.reading import structure_from

    atoms: Atoms = structure_from(source).copy()
    atoms.calc = None
    check_atoms(atoms)
    if periodic and not atoms.pbc.all():
        raise ValueError(f"the crystal has to repeat in three directions; pbc is {atoms.pbc.tolist()}.")
    return atoms


def check_calculator(calc: Any) -> None:
    """Raise TypeError for what is no ASE calculator."""
    if isinstance(calc, type) or not callable(getattr(calc, "get_property", None)):
        raise TypeError(f"calc is {calc!r}; give an ASE calculator, such as AndersoNN() or EMT().")


def check_finite(**values: Any) -> None:
    """Raise ValueError for what is no finite number."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not np.isfinite(float(value)):
            raise ValueError(f"{name} is {value!r}; it has to be a finite number.")


def check_positive(**values: Any) -> None:
    """Raise ValueError for what is no finite number above 0."""
    for name, value in values.items():
        check_finite(**{name: value})
        if value <= 0:
            raise ValueError(f"{name} is {value!r}; it has to be a finite number above 0.")


def check_count(least: int, **values: Any) -> None:
    """Raise ValueError for what is no whole number of at least `least`."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{name} is {value!r}; it has to be a whole number, {least} or more.")
