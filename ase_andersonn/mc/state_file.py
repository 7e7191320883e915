"""State files: npz archives with arrays, a JSON text and a checksum, written atomically. Nothing is unpickled."""

import json
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.formula import Formula
from numpy.typing import NDArray

from ase_andersonn.atomic_write import check_folder
from ase_andersonn.checksum import BLANK, read_arrays, write_arrays
from ase_andersonn.lock import Lock

Arrays = dict[str, NDArray[Any]]

FORMAT = 2
FORMAT_WITHOUT_CHECKSUM = 1
"""The previous format, which has only the checksums of the zip archive."""
TEXT = "state"


def write_state(path: str | Path, arrays: Mapping[str, NDArray[Any]], state: Mapping[str, Any]) -> None:
    """Write a state file atomically; an interruption leaves the old file unchanged.

    Args:
        path: the file.
        arrays: arrays by name, not of Python objects.
        state: all other values, as JSON. Floats are preserved bit for bit.

    Raises:
        ValueError: for arrays of Python objects.
    """
    if objects := [name for name, values in arrays.items() if values.dtype.hasobject]:
        raise ValueError(f"{', '.join(objects)} have Python objects; a state file can have numbers and strings only.")
    text = np.frombuffer(json.dumps({"format": FORMAT, **state}).encode(), np.uint8)
    write_arrays(Path(path), {TEXT: text, **arrays})


def read_state(path: str | Path) -> tuple[Arrays, dict[str, Any]]:
    """Read a file of `write_state`: arrays and state.

    Raises:
        ValueError: if the file is not a state file or is damaged.
    """
    try:
        arrays, has_checksum = read_arrays(Path(path))
        if TEXT not in arrays:
            raise ValueError("it is a file of another kind")
        state = json.loads(arrays.pop(TEXT).tobytes())
        found = state.pop("format")
        if found not in (FORMAT_WITHOUT_CHECKSUM, FORMAT):
            raise ValueError(f"its format is {found!r}, and this version of the package reads {FORMAT}")
        if has_checksum != (found == FORMAT):
            raise ValueError("it is damaged: its checksum is missing")
        if not {"settings", "nsteps", "seed"} <= state.keys():
            raise ValueError("it is a file of another kind")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a readable state file of a Monte Carlo run ({error}). Move it away to start over, put a "
            "copy in its place, or give another file as restart."
        ) from error
    return arrays, state


class StateFile:
    """State file of a simulation, locked against other simulations during a run.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        remedy = "Wait until it has ended, stop it, or give another file as restart."
        self.lock = Lock(path.with_name(f".{path.name}.lock"), f"the state file {path}", remedy)
        self._known: bytes | None = None

    def read(self) -> tuple[Arrays, dict[str, Any]] | None:
        """Read the state; None if there is no file.

        Raises:
            InUseError: while another simulation uses the file.
            ValueError: see `read_state`.
        """
        self.lock.check()
        if not self.path.exists():
            return None
        found = read_state(self.path)
        self._known = self._end()
        return found

    def write(self, arrays: Mapping[str, NDArray[Any]], state: Mapping[str, Any]) -> None:
        """See `write_state`; to be called within `locked`."""
        write_state(self.path, arrays, state)
        self._known = self._end()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the file within the context, which may be nested.

        Raises:
            InUseError: if another simulation uses the file.
            ValueError: if another one has written it since it was read or written by this one.
        """
        check_folder(self.path)
        with self.lock:
            if self.path.exists() and self._end() != self._known:
                raise ValueError(
                    f"{self.path} was written by another simulation since this one "
                    f"{'started' if self._known is None else 'read or wrote it'}. Create the simulation again to "
                    "continue from it, or give another file as restart."
                )
            yield

    def _end(self) -> bytes:
        """Last bytes of the file: its checksum, or the end of the archive in the previous format."""
        with open(self.path, "rb") as file:
            file.seek(max(self.path.stat().st_size - len(BLANK), 0))
            return file.read()


def save(
    restart: StateFile | None, path: str | Path | None, state: Callable[[], tuple[Arrays, dict[str, Any]]], kind: str
) -> None:
    """Write the state of a simulation.

    Args:
        restart: its state file.
        path: the file, if it is not that of `restart`.
        state: returns arrays and state.
        kind: class of the simulation, for the error message.

    Raises:
        ValueError: if neither a path nor `restart` is given.
    """
    if path is not None and (restart is None or Path(path).resolve() != restart.path.resolve()):
        write_state(path, *state())
    elif restart is not None:
        with restart.locked():
            restart.write(*state())
    else:
        raise ValueError(f"there is no state file to write; give save() a path, or restart= to {kind}.")


def check_same(path: str | Path, saved: Any, asked: Any) -> None:
    """Raise ValueError if the settings of a run differ from those in the file."""
    asked = json.loads(json.dumps(asked))
    if saved == asked:
        return
    names = [name for name in {**saved, **asked} if saved.get(name) != asked.get(name)]
    differences = "; ".join(f"{name} was {saved.get(name)} and is {asked.get(name)}" for name in names)
    raise ValueError(
        f"{path} belongs to a run with other settings: {differences}. Use the same settings to continue it, or move "
        "the file away to start over."
    )


def atoms_to_arrays(atoms: Atoms) -> Arrays:
    """Arrays, cell, boundary conditions and fixed atoms of a structure."""
    found = {f"atoms.{name}": values for name, values in atoms.arrays.items()}
    return {**found, "cell": atoms.cell.array, "pbc": atoms.pbc}


def check_atoms_fit(path: str | Path, arrays: Arrays, atoms: Atoms, changes: Collection[str]) -> None:
    """Raise ValueError if a state cannot belong to the atoms.

    Args:
        path: the state file.
        arrays: its arrays.
        atoms: the structure.
        changes: quantities that the moves change: positions, cell, count, composition.
    """
    remedy = "Give the structure that the run started from, or move the file away to start over."
    n = len(arrays["atoms.positions"])
    if "count" not in changes and n != len(atoms):
        raise ValueError(f"{path} has {n} atoms and the structure has {len(atoms)}. {remedy}")
    numbers = arrays["atoms.numbers"]
    if not {"count", "composition"} & set(changes) and not np.array_equal(np.sort(numbers), np.sort(atoms.numbers)):
        formula = Formula.from_list([chemical_symbols[z] for z in numbers]).format("hill")
        raise ValueError(f"{path} has {formula} and the structure is {atoms.get_chemical_formula()}. {remedy}")
    if "cell" not in changes and not np.allclose(arrays["cell"], atoms.cell.array):
        raise ValueError(f"{path} has the cell {arrays['cell'].tolist()} and the structure another. {remedy}")
    if not np.array_equal(arrays["pbc"], atoms.pbc):
        raise ValueError(f"{path} has the pbc {arrays['pbc'].tolist()} and the structure {atoms.pbc.tolist()}.")


def fingerprint(atoms: Atoms) -> int:
    """Hash of the arrays, cell, boundary conditions, constraints and calculator of atoms."""
    found = hash((id(atoms.calc), *(type(constraint).__name__ for constraint in atoms.constraints)))
    constraints = [
        (name, value if isinstance(value, np.ndarray) else np.array(repr(value)))
        for constraint in atoms.constraints
        for name, value in vars(constraint).items()
    ]
    for name, values in (*sorted(atoms_to_arrays(atoms).items()), *constraints):
        if not values.dtype.hasobject:
            found = hash((found, name, values.shape, zlib.crc32(np.ascontiguousarray(values).view(np.uint8).data)))
    return found


def arrays_to_atoms(arrays: Arrays, atoms: Atoms) -> None:
    """Set the atoms to a state; arrays are changed in place if the number of atoms is the same."""
    names = {name.removeprefix("atoms."): name for name in arrays if name.startswith("atoms.")}
    for gone in set(atoms.arrays) - set(names):
        del atoms.arrays[gone]
    for name, key in names.items():
        here = atoms.arrays.get(name)
        if here is not None and (here.shape, here.dtype) == (arrays[key].shape, arrays[key].dtype):
            here[:] = arrays[key]
        else:
            atoms.arrays[name] = arrays[key].copy()
    atoms.cell[:] = arrays["cell"]
