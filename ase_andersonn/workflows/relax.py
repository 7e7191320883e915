"""Relaxation: positions and cell, many structures at once.

ASE's own optimizers move the structures, and ASE's Fréchet filter makes cells coordinates,

    x = (F⁻¹ r, n log F),    cell = cell₀ Fᵀ,

so a structure ends where `ase.optimize` with `FrechetCellFilter` ends it. Only energies, forces and stresses of all
structures on their way are computed together, `evaluate` of a batched calculator: a structure that is done leaves the
batch, and the next one enters.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from ._cell_filter import CellFilter
from ._evaluate import (
    Results,
    check_calculator,
    check_count,
    check_finite,
    check_positive,
    evaluate_each,
    is_batched,
    read_structure,
    with_results,
)
from ._results import Result
from .reason import reason

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CellMode = Literal["auto", "fixed", "free", "constant_volume", "hydrostatic"]
CELL_MODES = ("auto", "fixed", "free", "constant_volume", "hydrostatic")
OptimizerName = Literal["BFGS", "LBFGS", "FIRE"]
OPTIMIZERS = ("BFGS", "LBFGS", "FIRE")
"""ASE's optimizers that need one evaluation a step."""
BFGS_ATOMS = 100
"""Atoms of a structure up to which BFGS is taken by itself: diagonalising its Hessian costs less than an evaluation."""
VOLUME_FACTOR = 4.0
"""A cell that grew or shrank by more than this has exploded or collapsed."""


@dataclass(frozen=True, repr=False)
class Relaxation(Result):
    """A relaxed structure, or what became of it.

    Attributes:
        atoms: the structure, with energy, forces (and stress, where the cell moved) in its calculator; where it
            failed, its last geometry, or None if it could not be read.
        energy: eV; nan without one.
        enthalpy: eV, energy + pressure · volume.
        fmax: eV/Å, the largest force, of ASE's generalised forces where the cell moved.
        steps: of the optimizer.
        converged: whether `fmax` was reached.
        error: why it was not, or None.
        energies: eV, at the beginning and after each step.
        initial_volume: Å³; nan where not periodic in three directions.
        volume: Å³.
    """

    atoms: Atoms | None
    energy: float
    enthalpy: float
    fmax: float
    steps: int
    converged: bool
    error: str | None
    energies: tuple[float, ...]
    initial_volume: float
    volume: float

    def _draw(self, figure: "Figure") -> None:
        axes = figure.subplots()
        axes.plot(np.array(self.energies) - (self.energies[-1] if self.energies else 0.0), ".-")
        axes.set(xlabel="step", ylabel="energy above the last, eV", title=self.error or "relaxed")
        axes.set_yscale("symlog", linthresh=1e-4)


@dataclass(frozen=True)
class _Options:
    fmax: float
    steps: int
    cell: CellMode | tuple[bool, ...]
    pressure: float
    fix_symmetry: bool
    optimizer: OptimizerName | None


def relax(structure: Any, calc: Any, **options: Any) -> Relaxation:
    """One relaxed structure; options as of `relax_many`.

    Raises:
        Exception: whatever reading or evaluating the structure raised. A structure that does not converge is a
            result with `converged` False.
    """
    check_calculator(calc)
    atoms = read_structure(structure)
    ((_, found, error),) = _relaxations([atoms], calc, **options)
    if error is not None:
        raise error
    return found


def relax_many(structures: Iterable[Any], calc: Any, **options: Any) -> list[Relaxation]:
    """Relaxed structures in the order given; options and errors as of `relax_each`."""
    found = dict(relax_each(structures, calc, **options))
    return [found[k] for k in range(len(found))]


def at_rest(structures: Sequence[Atoms], calc: Any, **options: Any) -> list[Atoms]:
    """The structures of `relax_many`, with results in their calculators; all of them or an error.

    Raises:
        RuntimeError: for the first one that does not converge.
    """
    found = relax_many(structures, calc, **options)
    for k, result in enumerate(found):
        if result.atoms is None or not result.converged:
            which = f"{structures[k].get_chemical_formula()}, structure {k} of {len(found)}"
            raise RuntimeError(f"{which}: {result.error}")
    return [result.atoms for result in found if result.atoms is not None]


def relax_each(structures: Iterable[Any], calc: Any, **options: Any) -> Iterator[tuple[int, Relaxation]]:
    """Relaxed structures with their indices, each as soon as it is done.

    Args:
        structures: ASE, pymatgen or phonopy structures, or paths; taken one after another as there is room.
        calc: any ASE calculator.
        fmax: eV/Å at which a structure is converged (0.01), of atoms and of the cell: ASE's −virial/n_atoms.
        steps: of the optimizer at most (500).
        cell: `"fixed"`; `"free"`; `"constant_volume"`; `"hydrostatic"`, which keeps its shape; six truth values, for
            xx yy zz yz xz xy, which may change; `"auto"`, free where it repeats in three directions, else fixed.
        pressure: eV/Å³ as everywhere in ASE (0); `5 * ase.units.GPa` is 5 GPa.
        fix_symmetry: whether the space group stays (False), by `ase.constraints.FixSymmetry`, which idealises it.
        optimizer: `"BFGS"`, `"LBFGS"` or `"FIRE"`; None for BFGS up to 100 atoms and LBFGS above.
        batch_atoms: atoms in a batch, about (2000).

    Yields:
        index and result. Structures that cannot be read or evaluated, explode, or do not converge are results too,
        with `error`.

    Raises:
        ValueError, TypeError: for options without a meaning, before anything is done.
    """
    if isinstance(structures, Atoms | str | Path) or hasattr(structures, "lattice"):
        raise TypeError("relax_many() takes several structures; for one, relax(structure, calc).")
    check_calculator(calc)
    return ((k, found) for k, found, _ in _relaxations(structures, calc, **options))


def _relaxations(
    structures: Iterable[Any],
    calc: Any,
    *,
    fmax: float = 0.01,
    steps: int = 500,
    cell: CellMode | Iterable[bool] = "auto",
    pressure: float = 0.0,
    fix_symmetry: bool = False,
    optimizer: OptimizerName | None = None,
    batch_atoms: int = 2000,
) -> Iterator[tuple[int, Relaxation, Exception | None]]:
    check_positive(fmax=fmax, batch_atoms=batch_atoms)
    check_count(0, steps=steps)
    if isinstance(cell, Iterable) and not isinstance(cell, str):
        cell = tuple(bool(moves) for moves in cell)
    if not (len(cell) == 6 if isinstance(cell, tuple) else cell in CELL_MODES):
        raise ValueError(f"cell is {cell!r}; it is one of {', '.join(CELL_MODES)}, or six truth values.")
    check_finite(pressure=pressure)
    if pressure and cell in ("fixed", "constant_volume"):
        raise ValueError(
            f"a pressure, {pressure / units.GPa:.6g} GPa, changes nothing with cell={cell!r}; leave one out."
        )
    if optimizer not in (*OPTIMIZERS, None):
        raise ValueError(f"optimizer is {optimizer!r}; it is one of {', '.join(OPTIMIZERS)}.")
    options = _Options(fmax, steps, cell, pressure, fix_symmetry, optimizer)
    return _in_batches(structures, calc, options, batch_atoms if is_batched(calc) else 0)


def _in_batches(
    structures: Iterable[Any], calc: Any, options: _Options, room: float
) -> Iterator[tuple[int, Relaxation, Exception | None]]:
    waiting = enumerate(structures)
    searches: list[_Search] = []
    more = True
    while more or searches:
        while more and (not searches or sum(len(search.atoms) for search in searches) < room):
            entry = next(waiting, None)
            if entry is None:
                more = False
                break
            try:
                searches.append(_Search(entry[0], read_structure(entry[1]), options))
            except Exception as error:
                yield entry[0], _failed(error), error
        for moves_cell in (True, False):  # a stress is not asked for where it may not exist
            own = [search for search in searches if search.moves_cell is moves_cell]
            for search, answer in zip(
                own, evaluate_each([search.atoms for search in own], calc, stress=moves_cell), strict=True
            ):
                search.advance(answer)
        for search in [search for search in searches if search.done]:
            yield search.index, search.result(), search.exception
        searches = [search for search in searches if not search.done]


def _failed(error: Exception) -> Relaxation:
    text, nan = reason(error), float("nan")
    return Relaxation(None, nan, nan, nan, 0, False, text, (), nan, nan)


class _Handed:
    """An ASE calculator that returns the results it was given."""

    results: Results

    def get_potential_energy(self, *_: Any, **__: Any) -> float:
        return float(self.results["energy"])

    def get_forces(self, *_: Any, **__: Any) -> NDArray[np.float64]:
        return np.array(self.results["forces"], dtype=float)

    def get_stress(self, *_: Any, **__: Any) -> NDArray[np.float64]:
        return np.array(self.results["stress"], dtype=float)


class _Search:
    """One structure on its way: an ASE optimizer that is handed the results of a batch."""

    def __init__(self, index: int, atoms: Atoms, options: _Options) -> None:
        self.index, self.options = index, options
        self.constraints = list(atoms.constraints)
        mode = options.cell
        if mode == "auto":
            mode = "free" if atoms.pbc.all() else "fixed"
        self.moves_cell = mode != "fixed"
        if self.moves_cell and not atoms.pbc.all():
            raise ValueError(
                f"only a cell that repeats in three directions can be relaxed; pbc is {atoms.pbc.tolist()}."
            )
        if options.fix_symmetry:
            if not atoms.pbc.all():
                raise ValueError(f"fix_symmetry keeps space groups of crystals; pbc is {atoms.pbc.tolist()}.")
            from ase.constraints import FixSymmetry

            atoms.set_constraint([*self.constraints, FixSymmetry(atoms)])
        self.atoms = atoms
        self.handed = _Handed()
        atoms.calc = self.handed
        target: Any = atoms
        if self.moves_cell:
            target = CellFilter(
                atoms,
                mask=None if isinstance(mode, str) else mode,
                constant_volume=mode == "constant_volume",
                hydrostatic_strain=mode == "hydrostatic",
                scalar_pressure=options.pressure,
            )
        self.optimizer = _optimizer(options.optimizer, target, len(atoms))
        self.initial_volume = _volume(atoms)
        self.energies: list[float] = []
        self.last: Atoms | None = None
        self.fmax = float("nan")
        self.done = self.converged = False
        self.exception: Exception | None = None
        self.error: str | None = None

    def advance(self, answer: Results | Exception) -> None:
        """One step with the results of the present geometry, or the end."""
        try:
            if isinstance(answer, Exception):
                raise answer
            self._check(answer)
            self.handed.results = answer
            gradient = self.optimizer.optimizable.get_gradient()
            self.fmax = float(np.linalg.norm(gradient.reshape(-1, 3), axis=1).max(initial=0.0))
            self.energies.append(float(answer["energy"]))
            self.converged = self.fmax < self.options.fmax
            stop = len(self.energies) > self.options.steps
            if self.converged or stop:
                self.done, self.last = True, with_results(self.atoms, answer)
                if not self.converged:
                    self.error = f"not converged after {self.options.steps} steps: fmax = {self.fmax:.2g} eV/Å."
                return
            self.optimizer.step()
        except _Exploded as error:
            self.done, self.error = True, str(error)
        except Exception as error:
            self.done, self.exception, self.error = True, error, reason(error)

    def _check(self, answer: Results) -> None:
        numbers = [np.asarray(answer[name]) for name in ("energy", "forces", "stress") if name in answer]
        if not all(np.isfinite(value).all() for value in numbers):
            raise _Exploded(f"energy, forces or stress were not finite after {len(self.energies)} steps.")
        factor = _volume(self.atoms) / self.initial_volume
        if self.moves_cell and not 1.0 / VOLUME_FACTOR < factor < VOLUME_FACTOR:
            raise _Exploded(f"the volume changed by a factor of {factor:.2g} in {len(self.energies)} steps.")

    def result(self) -> Relaxation:
        final = self.atoms.copy() if self.last is None else self.last
        final.set_constraint(self.constraints)
        energy, volume = self.energies[-1] if self.energies else float("nan"), _volume(final)
        enthalpy = energy + (self.options.pressure * volume if self.options.pressure else 0.0)
        steps = max(len(self.energies) - 1, 0)
        return Relaxation(
            final, energy, enthalpy, self.fmax, steps, self.converged, self.error, tuple(self.energies),
            self.initial_volume, volume,
        )  # fmt: skip


class _Exploded(Exception):
    pass


def _optimizer(name: OptimizerName | None, target: Any, n_atoms: int) -> Any:
    from ase import optimize

    return getattr(optimize, name or ("BFGS" if n_atoms <= BFGS_ATOMS else "LBFGS"))(target, logfile=None)


def _volume(atoms: Atoms) -> float:
    return float(atoms.cell.volume) if atoms.pbc.all() else float("nan")
