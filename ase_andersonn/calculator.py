"""The ASE calculator."""

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
from .deprecated import DIAGNOSTICS, RenamedKeys
from .evaluators import ModelSource, TilesArgument, evaluator_for, own_copy, potential_from
from .potentials.interface import ConvergenceError, Settings, warn_caller
from .potentials.training_domain import domain_warnings, name_of, of_structure
from .pretrained.catalog import DEFAULT_MODEL
from .structures.arrays import check_arrays
from .structures.convert import SameSiteError, to_atoms
from .structures.metadata import check_metadata
from .thread_lock import ThreadLock

NO_STRUCTURE = (
    "no structure was given, and none was calculated before: give one, as calc.get_potential_energy(atoms), or set "
    "atoms.calc = calc and ask the atoms."
)
MANY_MOVES = ("independent_sets", "trial_energy_changes", "commit_each")
"""Methods of evaluators that judge many Monte Carlo moves at once; the calculator hands them on."""


class AndersoNN(Calculator):
    """Energies, forces and stresses of an equilibrium potential.

    Args:
        model: a packaged model's name, the path of a model file, a model, or None for the packaged default. The path of
            a folder of models, or a sequence of models, is a committee: their mean is the result, and their spread is
            in `diagnostics`, `energy_std` in eV/atom and `forces_std` [n_atoms] in eV/Å.
        device: `"auto"` (CUDA where there is one), `"cpu"`, `"cuda"`, `"cuda:0"`.
        dtype: `"float32"` or `"float64"`.
        tol: energy tolerance, eV/atom. Features and adjoint are solved to relative residuals of `√tol`, and further
            while the estimated error of the energy is larger.
        warm_start: whether a call may start from the solutions of the calls before it, as MD and relaxations want.
            Results then depend on the history within the tolerance; without, they are repeatable bit for bit on one
            machine (with `"auto"`, up to where it compiles). A call starts cold where the geometries before do not
            predict its own to `tol^(1/3)`, 1 % at the default, as where atoms as light as hydrogen move far in a step.
            Structures of up to 256 atoms take a fixed number of applications instead wherever that reaches `tol`, which
            costs less.
        skin: Å by which the neighbour list is larger than the cutoff, so that it can be kept while atoms move; without
            warm starts a new list is made at every call.
        compile: `"native"` runs the largest part of the network in C++, built once a machine in some seconds; `True`
            compiles with torch; `False` does neither; `"auto"` uses the C++ part where it is built, has it built in the
            background once a calculator has worked for a second, and compiles with torch what has no C++ part once that
            pays.
        tiles: None evaluates structures as a whole; `"on"` as a sum over tiles, whose memory is bounded and in which a
            change costs what it touches; `"auto"` by tiles where the whole would not fit in memory; `Tiles(...)` sets
            focus and context. Tiles give no extrapolation score and no warnings of distances.

    Raises:
        FileNotFoundError: if there is no such model.
        ValueError: for a damaged model file, members of a committee that know different elements, and arguments without
            a meaning.
        RuntimeError: for `compile=True` where there is no compiler.

    `diagnostics` holds what a calculation cost; see the evaluators, `engine.evaluator.DirectEvaluator` for one. Threads
    that share a calculator wait for each other, and each change of structures is a new calculation: better give each
    thread, and each Monte Carlo simulation, a calculator of its own.
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
    ) -> None:
        if not (_is_number(tol) and tol > 0.0):
            raise ValueError(f"tol is {tol!r}; it is an energy tolerance in eV/atom and has to be positive.")
        if not (_is_number(skin) and skin >= 0.0):
            raise ValueError(f"skin is {skin!r}; it is a length in Å, 0 or more.")
        if warm_start not in (True, False):
            raise ValueError(f"warm_start is {warm_start!r}; use True or False.")
        if compile not in (True, False, "auto", "native"):
            raise ValueError(f"compile is {compile!r}; use 'auto', 'native', True or False.")
        settings = Settings(
            resolve_device(device),
            resolve_dtype(dtype),
            float(tol),
            bool(warm_start),
            float(skin),
            compile if compile in ("auto", "native") else bool(compile),
        )
        if settings.compile is True and find_compiler(settings.device)[0] is None:
            raise RuntimeError(f"compile=True is not possible: {find_compiler(settings.device)[1]}.")
        self.model = own_copy(potential_from(model), settings)
        self.evaluator = evaluator_for(self.model, settings, tiles)
        for name in MANY_MOVES:
            if hasattr(self.evaluator, name):
                setattr(self, name, partial(self._handed_on, name))
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
        """What the last calculation cost."""
        found = self.evaluator.diagnostics
        return found if found.keys().isdisjoint(DIAGNOSTICS.values()) else RenamedKeys(found, DIAGNOSTICS)

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """See `ase.calculators.calculator.Calculator.get_property`.

        Raises:
            ValueError, TypeError: also where there is no structure, or what is given is none; see `calculate`.
        """
        if atoms is None and self.atoms is None and allow_calculation and name in self.implemented_properties:
            raise ValueError(NO_STRUCTURE)
        with self._turn:  # no other thread's calculation comes between this one and its results
            return super().get_property(name, atoms, allow_calculation)  # type: ignore[no-untyped-call]

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What has changed since the last calculation; see `ase.calculators.calculator.Calculator.check_state`.

        What changes no result, and so starts no calculation, is told of here.
        """
        check_arrays(atoms)
        if (atoms.info or not self.ignored_changes.isdisjoint(atoms.arrays)) and self._knows(atoms):
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
            TypeError: for what is not `Atoms`, and for arrays that hold no numbers.
            ValueError: for structures without a meaning (none, empty, NaN, disordered, arrays of unequal length, two
                atoms on one site) and unknown elements.
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
        self._warn_of_the_unseen(structure if atoms is None else atoms)  # a copy has no attributes of pymatgen
        derivatives = any(name not in ("energy", "free_energy", "energies") for name in properties)
        with threads_for(len(structure)):
            self.results = self.evaluator.calculate(
                structure, forces=derivatives, stress=derivatives and periodic, changes=system_changes
            )

    @own_torch_state()
    def evaluate(
        self, structures: Iterable[Any], *, forces: bool = True, stress: bool = False, batch_atoms: int = 2000
    ) -> list[dict[str, Any]]:
        """Results of many structures, evaluated in batches; each as if it were alone, within the tolerance.

        Args:
            structures: `Atoms`, pymatgen structures or molecules, phonopy atoms.
            forces: whether forces are wanted.
            stress: whether stress is wanted; structures that are not periodic in three directions have none.
            batch_atoms: atoms evaluated at once, about.

        Returns:
            for each structure a dictionary as the calculator's `results`.
        """
        _check_several(structures)
        if not (_is_number(batch_atoms) and batch_atoms >= 1):
            raise ValueError(f"batch_atoms is {batch_atoms!r}; it has to be a finite number, at least 1.")
        frames = _frames(structures)
        for frame in frames:
            self._warn_of_the_unseen(frame, name_of(frame) if len(frames) > 1 else "")
        sizes = [len(frame) for frame in frames]
        with self._turn, threads_for(max([min(sum(sizes), batch_atoms), *sizes])):
            return self.evaluator.calculate_many(frames, forces=forces, stress=stress, batch_atoms=batch_atoms)

    @own_torch_state()
    def trial_energy(self, atoms: Atoms, changed: NDArray[np.int64]) -> float:
        """Energy of a trial structure of a Monte Carlo move; `commit` says what became of it.

        Args:
            atoms: the structure, which differs from the settled one only in the atoms `changed`.
            touched: indices of these atoms.

        Returns:
            energy, eV; infinite where two atoms stand on one site or the energy overflows.
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
        """Keep the proposed structure, or go back to the settled one at no cost."""
        with self._turn:
            if not self._impossible:
                self.evaluator.commit(accepted)

    @own_torch_state()
    def _handed_on(self, name: str, *args: Any) -> Any:
        """What a method of the evaluator returns."""
        with self._turn:
            return getattr(self.evaluator, name)(*args)

    def set(self, **kwargs: Any) -> Any:
        """Settings are given when a calculator is made, and do not change.

        Raises:
            ValueError: if it is asked to change one.
        """
        if self.parameters and kwargs:  # ASE's constructor sets them when there are none yet
            raise ValueError(f"{', '.join(kwargs)} cannot be changed here; make a new AndersoNN with these arguments.")
        return super().set(**kwargs)  # type: ignore[no-untyped-call]

    def reset(self) -> None:
        """Forget results and history."""
        with self._turn:
            super().reset()  # type: ignore[no-untyped-call]
            self.evaluator.reset()

    def _warn_of_the_unseen(self, atoms: Atoms, name: str = "") -> None:
        """Say once what the training data had nothing of; by name of a structure that has one, or is one of several."""
        if self._knows(atoms):
            state = check_metadata(atoms, reads_magmoms=self.model.reads_magmoms)
            texts = (*domain_warnings(self.model.card, atoms, self._told_pairs), *state.ignored())
            self._warn_once(texts, str(atoms.info.get("name") or name))

    def _knows(self, atoms: Atoms) -> bool:
        """Whether there are atoms, all of elements of the model; where not, an error will say so."""
        return bool(len(atoms)) and set(atoms.numbers.tolist()) <= set(self.model.elements)

    def _warn_once(self, texts: Iterable[str], name: str = "") -> None:
        for text in texts:
            if text not in self._warned:
                self._warned.add(text)
                warn_caller(of_structure(name, text) if name else text)


def _check_several(structures: Any) -> None:
    """Raise TypeError for one structure, a file's name and whatever else is no list of structures."""
    if isinstance(structures, str | bytes | PathLike):
        raise TypeError(f"evaluate() takes a list of structures; read those of {structures!r} with ase.io.read first.")
    try:
        to_atoms(structures)
    except TypeError:
        one = False
    except ValueError:  # one of pymatgen's that is not ordered
        one = True
    else:
        one = True
    if one:
        raise TypeError("evaluate() takes a list of structures; for one, [atoms].")
    if not isinstance(structures, Iterable):
        raise TypeError(f"evaluate() takes a list of structures; {structures!r} was given.")


def _frames(structures: Iterable[Any]) -> list[Atoms]:
    """The structures as ase.Atoms; an error says which of them it is about."""
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
    except OverflowError:  # an integer that no float holds
        return False


if AndersoNN.name not in external_calculators:  # ASE's get_calculator_class("andersonn")
    register_calculator_class(AndersoNN.name, AndersoNN)

__all__ = ["AndersoNN", "ConvergenceError"]
