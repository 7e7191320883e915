"""State files: NumPy's npz with arrays, one text of JSON and a checksum, written whole or not at all.

Nothing is unpickled.
"""

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
WITHOUT_CHECKSUM = 1
"""The format before; its arrays have the checksums of the archive alone."""
TEXT = "state"


def write_state(path: str | Path, arrays: Mapping[str, NDArray[Any]], state: Mapping[str, Any]) -> None:
    """Replace the file at `path` at one stroke; an interruption leaves the old file as it was.

    Args:
        path: the file.
        arrays: by name; none of Python objects.
        state: all else, as JSON. Its floats come back bit for bit.

    Raises:
        ValueError: for arrays of Python objects.
    """
    if objects := [name for name, values in arrays.items() if values.dtype.hasobject]:
        raise ValueError(f"{', '.join(objects)} hold Python objects; a state file takes numbers and texts.")
    text = np.frombuffer(json.dumps({"format": FORMAT, **state}).encode(), np.uint8)
    write_arrays(Path(path), {TEXT: text, **arrays})


def read_state(path: str | Path) -> tuple[Arrays, dict[str, Any]]:
    """What `write_state` wrote.

    Raises:
        ValueError: for a file that is none, or is damaged.
    """
    try:
        arrays, has_checksum = read_arrays(Path(path))
        if TEXT not in arrays:
            raise ValueError("it is a file of another kind")
        state = json.loads(arrays.pop(TEXT).tobytes())
        found = state.pop("format")
        if found not in (WITHOUT_CHECKSUM, FORMAT):
            raise ValueError(f"its format is {found!r}, and this version of the package reads {FORMAT}")
        if has_checksum != (found == FORMAT):
            raise ValueError("it is damaged: its checksum is missing")
        if not {"settings", "nsteps", "seed"} <= state.keys():
            raise ValueError("it is a file of another kind")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no state of a Monte Carlo run that can be read ({error}). Move it away to begin anew, put a "
            "copy in its place, or name another file as restart."
        ) from error
    return arrays, state


class StateFile:
    """The state file of a simulation, which nobody else writes while that runs.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        remedy = "Wait until that has ended, stop it, or name another file as restart."
        self.lock = Lock(path.with_name(f".{path.name}.lock"), f"the state file {path}", remedy)
        self._known: bytes | None = None

    def read(self) -> tuple[Arrays, dict[str, Any]] | None:
        """The state, if there is one.

        Raises:
            InUseError: while another simulation runs with the file.
            ValueError: see `read_state`.
        """
        self.lock.check()
        if not self.path.exists():
            return None
        found = read_state(self.path)
        self._known = self._end()
        return found

    def write(self, arrays: Mapping[str, NDArray[Any]], state: Mapping[str, Any]) -> None:
        """See `write_state`; to be called within `held`."""
        write_state(self.path, arrays, state)
        self._known = self._end()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else writes the file within; contexts may be nested.

        Raises:
            InUseError: if another simulation runs with the file.
            ValueError: if another one has written it since it was read or written by this one.
        """
        check_folder(self.path)
        with self.lock:
            if self.path.exists() and self._end() != self._known:
                raise ValueError(
                    f"{self.path} was written by another simulation since this one "
                    f"{'began' if self._known is None else 'read or wrote it'}. Make the simulation anew to go on from "
                    "that, or name another file as restart."
                )
            yield

    def _end(self) -> bytes:
        """The file's checksum, or what an older one ends with."""
        with open(self.path, "rb") as file:
            file.seek(max(self.path.stat().st_size - len(BLANK), 0))
            return file.read()


def save(
    restart: StateFile | None, path: str | Path | None, state: Callable[[], tuple[Arrays, dict[str, Any]]], kind: str
) -> None:
    """Write a simulation's state.

    Args:
        restart: its state file.
        path: of the file to write, if that is not the one of `restart`.
        state: gives what is to be written.
        kind: of the simulation, for the error's text.

    Raises:
        ValueError: if there is neither.
    """
    if path is not None and (restart is None or Path(path).resolve() != restart.path.resolve()):
        write_state(path, *state())
    elif restart is not None:
        with restart.held():
            restart.write(*state())
    else:
        raise ValueError(f"there is no state file to write; give save() a path, or restart= to {kind}.")


def check_same(path: str | Path, saved: Any, asked: Any) -> None:
    """Raise ValueError where a run asks for other settings than those the file was written with."""
    asked = json.loads(json.dumps(asked))
    if saved == asked:
        return
    names = [name for name in {**saved, **asked} if saved.get(name) != asked.get(name)]
    told = "; ".join(f"{name} was {saved.get(name)} and is {asked.get(name)}" for name in names)
    raise ValueError(
        f"{path} belongs to a run with other settings: {told}. Use the same settings to continue it, or move the file "
        "away to begin anew."
    )


def atoms_to_arrays(atoms: Atoms) -> Arrays:
    """Arrays, cell, periodicity and fixed atoms."""
    found = {f"atoms.{name}": values for name, values in atoms.arrays.items()}
    return {**found, "cell": atoms.cell.array, "pbc": atoms.pbc}


def check_atoms_fit(path: str | Path, arrays: Arrays, atoms: Atoms, changes: Collection[str]) -> None:
    """Raise ValueError where a state cannot be of these atoms.

    Args:
        path: of the state.
        arrays: of the state.
        atoms: the structure.
        changes: what the moves change of positions, cell, count and composition.
    """
    remedy = "Give the structure the run began with, or move the file away to begin anew."
    n = len(arrays["atoms.positions"])
    if "count" not in changes and n != len(atoms):
        raise ValueError(f"{path} holds {n} atoms and the structure has {len(atoms)}. {remedy}")
    numbers = arrays["atoms.numbers"]
    if not {"count", "composition"} & set(changes) and not np.array_equal(np.sort(numbers), np.sort(atoms.numbers)):
        held = Formula.from_list([chemical_symbols[z] for z in numbers]).format("hill")
        raise ValueError(f"{path} holds {held} and the structure is {atoms.get_chemical_formula()}. {remedy}")
    if "cell" not in changes and not np.allclose(arrays["cell"], atoms.cell.array):
        raise ValueError(f"{path} has the cell {arrays['cell'].tolist()} and the structure another. {remedy}")
    if not np.array_equal(arrays["pbc"], atoms.pbc):
        raise ValueError(f"{path} has the pbc {arrays['pbc'].tolist()} and the structure {atoms.pbc.tolist()}.")


def fingerprint(atoms: Atoms) -> int:
    """A number that atoms with other arrays, cell, periodicity, constraints or calculator hardly share."""
    found = hash((id(atoms.calc), *(type(constraint).__name__ for constraint in atoms.constraints)))
    held = [
        (name, value if isinstance(value, np.ndarray) else np.array(repr(value)))
        for constraint in atoms.constraints
        for name, value in vars(constraint).items()
    ]
    for name, values in (*sorted(atoms_to_arrays(atoms).items()), *held):
        if not values.dtype.hasobject:
            found = hash((found, name, values.shape, zlib.crc32(np.ascontiguousarray(values).view(np.uint8).data)))
    return found


def arrays_to_atoms(arrays: Arrays, atoms: Atoms) -> None:
    """Put a state in the place of the atoms' own, in place where the number of atoms is the same."""
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
