"""State files: NumPy's npz with arrays and one text of JSON, written whole or not at all; nothing is unpickled."""

import json
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.formula import Formula
from numpy.typing import NDArray

from ase_andersonn.writing import whole_file

Arrays = dict[str, NDArray[Any]]

FORMAT = 1
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
    path = Path(path)
    if objects := [name for name, values in arrays.items() if values.dtype.hasobject]:
        raise ValueError(f"{', '.join(objects)} hold Python objects; a state file takes numbers and texts.")
    text = np.frombuffer(json.dumps({"format": FORMAT, **state}).encode(), np.uint8)
    together: dict[str, Any] = {TEXT: text, **arrays}
    with whole_file(path) as file:
        np.savez(file, **together)


def read_state(path: str | Path) -> tuple[Arrays, dict[str, Any]]:
    """What `write_state` wrote.

    Raises:
        ValueError: for a file that is none, or is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        state = json.loads(arrays.pop(TEXT).tobytes())
        if state.pop("format") != FORMAT:
            raise ValueError("it has another format")
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{path} is no state of a Monte Carlo run that can be read ({error}). Move it away to begin anew, or name "
            "another file as restart."
        ) from error
    return arrays, state


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
