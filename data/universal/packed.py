"""Labelled structures as packed arrays in one npz file, and as ASE's atoms.

| array | shape | |
|---|---|---|
| `n_atoms` | [n] | atoms of each structure; where a structure begins is the sum of those before |
| `numbers`, `positions`, `forces` | [n_total], [n_total, 3] | of all structures one after another; Å, eV/Å |
| `cell`, `energy`, `stress` | [n, 3, 3], [n], [n, 6] | Å, eV, eV/Å³ (xx yy zz yz xz xy, σ = dE/dε / V) |
| `tag`, `step` | [n] | kind of structure; steps along the forces since its start |

All structures are periodic in three directions. A file may hold more arrays of one value a structure, as `error`.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from split import formula

Packed = dict[str, np.ndarray]
PER_ATOM = ("numbers", "positions", "forces")
TYPES: dict[str, type] = {
    "n_atoms": np.uint16, "numbers": np.uint8, "positions": np.float32, "forces": np.float32, "cell": np.float32,
    "energy": np.float64, "stress": np.float32, "tag": np.str_, "step": np.uint8,
}  # fmt: skip
ROWS = {"positions": (3,), "forces": (3,), "cell": (3, 3), "stress": (6,)}
"""Shapes of what is more than one number."""


def read(path: str | Path) -> Packed:
    """The arrays of a file.

    Raises:
        ValueError: where one is missing or of another length than the rest.
    """
    with np.load(path) as data:
        packed = {name: data[name] for name in data.files}
    missing = [name for name in TYPES if name not in packed]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(packed)}.")
    n, total = len(packed["n_atoms"]), int(packed["n_atoms"].sum())
    wrong = [name for name, array in packed.items() if len(array) != (total if name in PER_ATOM else n)]
    if wrong:
        raise ValueError(f"{path}: {', '.join(wrong)} have another length than {n} structures of {total} atoms need.")
    return packed


def write(path: Path, packed: Packed) -> None:
    """Write the file in one piece: it is there whole, or as it was before; what killed processes left of it goes."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    with temporary.open("wb") as stream:
        np.savez_compressed(stream, **packed)  # type: ignore[arg-type]
        stream.flush()
        os.fsync(stream.fileno())
    with suppress(FileNotFoundError):  # by another process that made the same file at the same time
        temporary.replace(path)
    for left in path.parent.glob(f"{path.name}.*.part"):
        left.unlink(missing_ok=True)


def rounded(atoms: Atoms) -> Atoms:
    """The bare structure as the file will hold it, so that labels belong to just that."""
    cell, positions = (np.asarray(array, np.float32).astype(float) for array in (atoms.cell.array, atoms.positions))
    return Atoms(atoms.numbers, positions, cell=cell, pbc=True)


def pack(frames: Sequence[Atoms]) -> Packed:
    """Arrays of atoms that carry energy, forces and stress, and in `info` their tag, step, and maybe more numbers."""
    columns: dict[str, list[object]] = {name: [] for name in TYPES}
    columns |= {name: [] for atoms in frames for name in atoms.info}
    for atoms in frames:
        of_cell = {"n_atoms": len(atoms), "cell": atoms.cell.array, "energy": atoms.get_potential_energy()}
        of_atoms = {"numbers": atoms.numbers, "positions": atoms.positions, "forces": atoms.get_forces()}
        for name, value in (of_cell | of_atoms | {"stress": atoms.get_stress()} | atoms.info).items():
            columns[name].append(value)
    packed: Packed = {}
    for name, values in columns.items():
        together = np.concatenate if name in PER_ATOM else np.array
        array = together(values) if values else np.zeros((0, *ROWS.get(name, ())))
        packed[name] = array.astype(TYPES.get(name, array.dtype))
    return packed


def starts(packed: Packed) -> np.ndarray:
    """Where each structure begins, and the end of the last, [n + 1]."""
    return np.concatenate([[0], np.cumsum(packed["n_atoms"], dtype=np.int64)])


def unpack(packed: Packed) -> Iterator[Atoms]:
    """The structures with their labels, and in `info` what else the file says of each."""
    offset = starts(packed)
    others = [name for name in packed if name not in (*PER_ATOM, "n_atoms", "cell", "energy", "stress")]
    for k, energy in enumerate(packed["energy"]):
        own = slice(offset[k], offset[k + 1])
        cell, positions, forces, stress = (
            np.asarray(array, float)
            for array in (packed["cell"][k], packed["positions"][own], packed["forces"][own], packed["stress"][k])
        )
        atoms = Atoms(packed["numbers"][own], positions, cell=cell, pbc=True)
        atoms.info |= {name: packed[name][k].item() for name in others}
        atoms.calc = SinglePointCalculator(atoms, energy=float(energy), forces=forces, stress=stress)
        yield atoms


def take(packed: Packed, chosen: np.ndarray) -> Packed:
    """The structures of these indices, in this order."""
    offset = starts(packed)
    pieces = [np.arange(offset[k], offset[k + 1]) for k in chosen]
    rows = np.concatenate(pieces) if pieces else np.zeros(0, int)
    return {name: array[rows if name in PER_ATOM else chosen] for name, array in packed.items()}


def join(parts: Iterable[Packed]) -> Packed:
    """All structures one after another, with the arrays that all of them have."""
    found = [part for part in parts if len(part["n_atoms"])]
    if not found:
        return pack([])
    common = [name for name in found[0] if all(name in part for part in found)]
    return {name: np.concatenate([part[name] for part in found]) for name in common}


def shuffled(packed: Packed, seed: int = 0) -> Packed:
    """In random order, the same for the same seed."""
    return take(packed, np.random.default_rng(seed).permutation(len(packed["n_atoms"])))


def formulas(packed: Packed) -> list[str]:
    """The reduced formula of each structure."""
    offset = starts(packed)
    return [formula(Atoms(packed["numbers"][i:j])) for i, j in pairwise(offset)]
