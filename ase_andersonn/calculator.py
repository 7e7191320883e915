"""ASE calculator of deep equilibrium interatomic potentials."""

import math
from collections.abc import Iterable, Sequence
from functools import partial
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import (
    CalculationFailed,
    Calculator,
    PropertyNotImplementedError,
    all_changes,
    external_calculators,
    register_calculator_class,
)
from numpy.typing import NDArray

from .backends import CompileMode, find_compiler, own_torch_state, resolve_device, resolve_dtype, threads_for
from .deprecated import DIAGNOSTICS, RenamedKeys, renamed_method
from .evaluators import ModelSource, TilesArgument, choose_candidates, evaluator_for, own_copy, potential_from
from .potentials.interface import ConvergenceError, Settings, warn_caller
from .potentials.training_domain import domain_warnings, name_of, of_structure
from .pretrained.catalog import DEFAULT_MODEL
from .solvers.registry import solver_module
from .structures.arrays import check_arrays
from .structures.convert import SameSiteError, to_atoms
from .structures.metadata import check_metadata
from .thread_lock import ThreadLock

NO_STRUCTURE = (
    "no structure was given, and none was calculated before: pass one, as in calc.get_potential_energy(atoms), or "
    "set atoms.calc = calc and call the methods of atoms."
)
MANY_MOVES_METHODS = ("independent_sets", "trial_energy_changes", "commit_each")
"""Methods of evaluators for many Monte Carlo moves at once, which the calculator forwards."""


class AndersoNN(Calculator):
    """ASE calculator: energies, forces and stresses of a deep equilibrium (DEQ) interatomic potential.

    Args:
        model: a packaged model's name, the path of a model file, a model, or None for the packaged default. A folder or
            a sequence of models is a committee: results are means over its models, and standard deviations are in
            `diagnostics`, `energy_std` in eV/atom and `forces_std` [n_atoms] in eV/Å.
        device: `"auto"` (CUDA where there is one), `"cpu"`, `"cuda"`, `"cuda:0"`.
        dtype: `"float32"` or `"float64"`.
        tol: energy tolerance, eV/atom. Features and adjoint are solved to relative residuals of `√tol`, or smaller ones
            until the estimated energy error is below `tol`.
        warm_start: whether a solve starts from the solutions of previous calls, as is useful for MD and relaxations.
            Results then depend on the history within the tolerance; without warm starts they are reproducible bit for
            bit on one machine (with `compile="auto"`, until it compiles). A solve starts cold if previous geometries do
            not predict the new one to `tol^(1/3)`, 1 % by default, for instance if hydrogen atoms move far in a step.
            Structures of up to 256 atoms use a fixed number of Picard iterations instead, if this reaches `tol`; for
            small systems it is faster than a warm start.
        skin: Å by which the neighbour list exceeds the cutoff, to be reused while atoms move; 0 without warm starts.
        compile: `"native"` evaluates most of the network by C++ kernels, built once per machine in a few seconds;
            `True` compiles with torch; `False` does neither; `"auto"` uses the C++ kernels if they are built, builds
            them in the background after one second of calculations, and compiles the rest with torch after long use;
            where `andersonn optimize` or `optimize=True` has chosen for the model on this machine, it does as chosen.
        tiles: None for direct evaluation; `"on"` for a sum over tiles, with bounded memory and incremental updates for
            local changes; `"auto"` for tiles only if a direct evaluation would not fit in memory; `Tiles(...)` sets
            focus and context. There are no extrapolation scores and no warnings of short distances with tiles.
        solver: class name of the fixed-point solver: `"Anderson"`, `"Broyden"`, `"Picard"`, or that of a package that
            registers one, see `solvers.registry`. Others than the default are slower, except for tests of a few.
        optimize: True measures how the model runs fastest on this machine, unless this is known, within half
            a minute and the time to build kernels; see `engine.optimize.choose`.

    Raises:
        FileNotFoundError: if there is no such model.
        ValueError: for a damaged model file, committee members with different elements, and invalid arguments.
        RuntimeError: for `compile=True` without a compiler.

    `diagnostics` has the cost and convergence of the last calculation; see the evaluators, such as
    `engine.evaluator.DirectEvaluator`. Threads that share a calculator are serialized, and alternate structures are
    calculated anew: use a separate calculator for each thread and each Monte Carlo simulation.
    """

    name = "andersonn"
    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress", "stresses"]  # noqa: RUF012 (the form ASE asks for)
    ignored_changes = {"initial_charges", "initial_magmoms"}  # noqa: RUF012

    @own_torch_state()
    def __init__(
        self,
        model: ModelSource | Sequence[ModelSource] | None = None,
        *,
        device: str = "auto",
        dtype: str = "float32",
        tol: float = 1e-6,
        warm_start: bool = True,
        skin: float = 0.5,
        compile: CompileMode = "auto",
        tiles: TilesArgument = None,
        solver: str = Settings.solver,
        optimize: bool = False,
    ) -> None:
        if not (_is_number(tol) and tol > 0.0):
            raise ValueError(f"tol is {tol!r}; it is an energy tolerance in eV/atom and has to be positive.")
        if not (_is_number(skin) and skin >= 0.0):
            raise ValueError(f"skin is {skin!r}; it is a length in Å, 0 or more.")
        if warm_start not in (True, False):
            raise ValueError(f"warm_start is {warm_start!r}; use True or False.")
        if compile not in (True, False, "auto", "native"):
            raise ValueError(f"compile is {compile!r}; use 'auto', 'native', True or False.")
        if optimize not in (True, False) or (optimize and compile != "auto"):
            raise ValueError(f"optimize is {optimize!r}; use True, with compile='auto' as by default, or False.")
        solver_module(solver)  # raises for an unknown name
        settings = Settings(
            resolve_device(device),
            resolve_dtype(dtype),
            float(tol),
            bool(warm_start),
            float(skin),
            compile if compile in ("auto", "native") else bool(compile),
            solver,
            bool(optimize),
        )
        if settings.compile is True and find_compiler(settings.device)[0] is None:
            raise RuntimeError(f"compile=True is not possible: {find_compiler(settings.device)[1]}.")
        self.model = own_copy(potential_from(model), settings)
        if optimize:
            choose_candidates(self.model, settings.device)
        self.evaluator = evaluator_for(self.model, settings, tiles)
        for name in MANY_MOVES_METHODS:
            if hasattr(self.evaluator, name):
                setattr(self, name, partial(self._forwarded, name))
        if self.model.reads_magmoms:
            self.ignored_changes = self.ignored_changes - {"initial_magmoms"}
        self._impossible = False
        self._warned: set[str] = set()
        self._told_pairs: set[frozenset[int]] = set()
        self._turn = ThreadLock()
        super().__init__(  # type: ignore[no-untyped-call]
            model=DEFAULT_MODEL if model is None else str(model) if isinstance(model, str | Path) else "custom",
            dtype=str(settings.dtype).removeprefix("torch."),
            tol=settings.tol,
        )

    @property
    def diagnostics(self) -> dict[str, Any]:
        """Cost and convergence of the last calculation."""
        found = self.evaluator.diagnostics
        return found if found.keys().isdisjoint(DIAGNOSTICS.values()) else RenamedKeys(found, DIAGNOSTICS)

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """See `ase.calculators.calculator.Calculator.get_property`.

        Raises:
            ValueError, TypeError: also without a structure, or for an invalid one; see `calculate`.
        """
        if atoms is None and self.atoms is None and allow_calculation and name in self.implemented_properties:
            raise ValueError(NO_STRUCTURE)
        with self._turn:  # no calculation of another thread between this one and its results
            return super().get_property(name, atoms, allow_calculation)  # type: ignore[no-untyped-call]

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Changes since the last calculation; see `ase.calculators.calculator.Calculator.check_state`.

        Warns of charges and spins, whose changes have no effect and start no calculation.
        """
        check_arrays(atoms)
        if (atoms.info or not self.ignored_changes.isdisjoint(atoms.arrays)) and self._supports(atoms):
            self._warn_once(check_metadata(atoms, reads_magmoms=self.model.reads_magmoms).ignored())
        found: list[str] = super().check_state(atoms, tol)  # type: ignore[no-untyped-call]
        return found

    @own_torch_state()
    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """See `ase.calculators.calculator.Calculator.calculate`.

        Raises:
            TypeError: if the argument is not `Atoms`, or its arrays are not numeric.
            ValueError: for invalid structures (none, empty, NaN, disordered, arrays of unequal length, two atoms on one
                site) and unknown elements.
            PropertyNotImplementedError: for the stress of a structure that is not periodic in three directions.
            ConvergenceError: if a fixed point is not reached.
        """
        if atoms is not None:
            check_arrays(atoms)
        elif self.atoms is None:
            raise ValueError(NO_STRUCTURE)
        with self._turn:
            self._calculate(atoms, properties, system_changes)

    def _calculate(self, atoms: Atoms | None, properties: Sequence[str], system_changes: Sequence[str]) -> None:
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        self.results = {}
        structure = self.atoms
        assert structure is not None  # set by ASE
        periodic = bool(structure.pbc.all())
        if not periodic and {"stress", "stresses"} & set(properties):
            raise PropertyNotImplementedError(
                f"stress needs a cell that is periodic in three directions; pbc is {structure.pbc.tolist()}."
            )
        self._warn_of_unsupported(structure if atoms is None else atoms)  # a copy has no attributes of pymatgen
        derivatives = any(name not in ("energy", "free_energy", "energies") for name in properties)
        with threads_for(len(structure)):
            self.results = self.evaluator.calculate(
                structure, forces=derivatives, stress=derivatives and periodic, changes=system_changes
            )

    @own_torch_state()
    def evaluate(
        self, structures: Iterable[Any], *, forces: bool = True, stress: bool = False, batch_atoms: int = 2000
    ) -> list[dict[str, Any]]:
        """Results of many structures, evaluated in batches; equal to separate results within the tolerance.

        Args:
            structures: `Atoms`, pymatgen structures or molecules, phonopy atoms.
            forces: whether to compute forces.
            stress: whether to compute stress, for structures that are periodic in three directions.
            batch_atoms: approximate number of atoms evaluated at once.

        Returns:
            a dictionary as the calculator's `results` for each structure.
        """
        _check_several(structures)
        if not (_is_number(batch_atoms) and batch_atoms >= 1):
            raise ValueError(f"batch_atoms is {batch_atoms!r}; it has to be a finite number, at least 1.")
        frames = _frames(structures)
        for frame in frames:
            self._warn_of_unsupported(frame, name_of(frame) if len(frames) > 1 else "")
        sizes = [len(frame) for frame in frames]
        with self._turn, threads_for(max([min(sum(sizes), batch_atoms), *sizes])):
            return self.evaluator.calculate_many(frames, forces=forces, stress=stress, batch_atoms=batch_atoms)

    @own_torch_state()
    def trial_energy(self, atoms: Atoms, changed: NDArray[np.int64]) -> float:
        """Energy of a trial structure of a Monte Carlo move, to be accepted or rejected by `commit`.

        Args:
            atoms: the structure, which differs from the committed one only in the atoms `changed`.
            changed: indices of these atoms.

        Returns:
            energy, eV; infinite if two atoms are on one site or the energy overflows.
        """
        check_arrays(atoms)
        with self._turn, threads_for(len(atoms)):
            self._impossible = False
            try:
                return self.evaluator.trial_energy(atoms, changed)
            except ConvergenceError:
                raise
            except (SameSiteError, CalculationFailed):
                self._impossible = True
                return math.inf

    @own_torch_state()
    def commit(self, accepted: bool) -> None:
        """Accept the trial structure, or return to the committed one without further evaluation."""
        with self._turn:
            if not self._impossible:
                self.evaluator.commit(accepted)

    propose = renamed_method("propose", "trial_energy")
    settle = renamed_method("settle", "commit")

    @own_torch_state()
    def _forwarded(self, name: str, *args: Any) -> Any:
        """Call a method of the evaluator."""
        with self._turn:
            return getattr(self.evaluator, name)(*args)

    def set(self, **kwargs: Any) -> Any:
        """Settings are fixed when a calculator is created.

        Raises:
            ValueError: if a setting would be changed.
        """
        if self.parameters and kwargs:  # ASE's constructor sets them initially
            raise ValueError(f"{', '.join(kwargs)} cannot be changed; create a new AndersoNN with these arguments.")
        return super().set(**kwargs)  # type: ignore[no-untyped-call]

    def reset(self) -> None:
        """Discard results and history."""
        with self._turn:
            super().reset()  # type: ignore[no-untyped-call]
            self.evaluator.reset()

    def _warn_of_unsupported(self, atoms: Atoms, name: str = "") -> None:
        """Warn once of charges, spins and elements outside the training data, with a structure's name if it has one."""
        if self._supports(atoms):
            state = check_metadata(atoms, reads_magmoms=self.model.reads_magmoms)
            texts = (*domain_warnings(self.model.card, atoms, self._told_pairs), *state.ignored())
            self._warn_once(texts, str(atoms.info.get("name") or name))

    def _supports(self, atoms: Atoms) -> bool:
        """Whether there are atoms, all of elements of the model; otherwise the calculation raises an error."""
        return bool(len(atoms)) and set(atoms.numbers.tolist()) <= set(self.model.elements)

    def _warn_once(self, texts: Iterable[str], name: str = "") -> None:
        for text in texts:
            if text not in self._warned:
                self._warned.add(text)
                warn_caller(of_structure(name, text) if name else text)


def _check_several(structures: Any) -> None:
    """Raise TypeError for a single structure, a file name, and anything else that is not a list of structures."""
    if isinstance(structures, str | bytes | PathLike):
        raise TypeError(f"evaluate() takes a list of structures; read those of {structures!r} with ase.io.read first.")
    try:
        to_atoms(structures)
    except TypeError:
        one = False
    except ValueError:  # a disordered one of pymatgen
        one = True
    else:
        one = True
    if one:
        raise TypeError("evaluate() takes a list of structures; for one, [atoms].")
    if not isinstance(structures, Iterable):
        raise TypeError(f"evaluate() takes a list of structures; {structures!r} was given.")


def _frames(structures: Iterable[Any]) -> list[Atoms]:
    """Convert structures to ase.Atoms; errors have the index of the structure."""
    frames = []
    for index, structure in enumerate(structures):
        try:
            frames.append(to_atoms(structure))
            check_arrays(frames[-1])
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"structure {index}: {error}") from error
    return frames


def _is_number(value: Any) -> bool:
    try:
        return type(value) is not bool and isinstance(value, Real) and math.isfinite(value)
    except OverflowError:  # an integer too large for a float
        return False


if AndersoNN.name not in external_calculators:  # ASE's get_calculator_class("andersonn")
    register_calculator_class(AndersoNN.name, AndersoNN)

__all__ = ["AndersoNN", "ConvergenceError"]
