"""Readers of text formats with several structures, block by block: XYZ, CIF, SDF, GRO, POSCAR, JSON.

For these `ase.io` reads only the first block, fails as a whole for one bad block, or stops at an empty line.
"""

import io
import json
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, TextIO

import numpy as np
from ase import Atoms
from ase.io import iread
from ase.io.cif import CIFBlock, parse_cif
from ase.io.extxyz import read_xyz
from ase.io.gromacs import read_gromacs
from ase.io.jsonio import decode
from ase.io.sdf import read_sdf
from ase.io.vasp import read_vasp

from .convert import to_atoms
from .metadata import share_of

Found = Atoms | Exception
OCCUPANCY = "_atom_site_occupancy"
CELL = (*(f"_cell_length_{x}" for x in "abc"), *(f"_cell_angle_{x}" for x in ("alpha", "beta", "gamma")))
NO_POSCAR = re.compile(r"lattice velocities and vectors|cartesian|direct|[-+.\dEeDd\s]+", re.IGNORECASE)
"""Lines that may follow the positions of a structure; any other line starts another structure."""
SCALARS = (bool, int, float, str)


def _each(read: Callable[[Any], Any], blocks: Iterator[Any]) -> Iterator[Found]:
    """Structure of every block, or the error of reading it; blocks without a structure (None) are skipped."""
    for block in blocks:
        try:
            found = read(block)
        except Exception as error:
            found = error
        if found is not None:
            yield found


def _xyz(stream: TextIO) -> Iterator[Found]:
    return _each(_xyz_structure, _xyz_blocks(stream))


def _xyz_blocks(stream: TextIO) -> Iterator[str]:
    """Blocks of an XYZ file: number of atoms, comment, a line per atom, and ASE's VEC lines."""
    line = stream.readline()
    while line:
        if not line.strip():
            line = stream.readline()
            continue
        try:
            size = int(line)
        except ValueError:
            raise ValueError(f"{line.strip()[:40]!r} was found instead of a number of atoms.") from None
        block = [line, *islice(stream, size + 1)]
        while (line := stream.readline()).lstrip().startswith("VEC"):
            block.append(line)
        yield "".join(block)


def _xyz_structure(text: str) -> Atoms:
    atoms: Atoms
    (atoms,) = read_xyz(io.StringIO(text), slice(None))
    return atoms


def _cif(stream: TextIO) -> Iterator[Found]:
    blocks = list(_cif_blocks(stream.read()))
    if not blocks:
        raise ValueError("it has no line that begins with data_, as every block of a CIF does.")
    yield from _each(_cif_structure, iter(blocks))


def _cif_blocks(text: str) -> Iterator[str]:
    """Blocks of a CIF, from one `data_` to the next, except for `data_` in multi-line texts between semicolons."""
    block: list[str] = []
    inside = False
    for line in text.split("\n"):
        inside ^= line.startswith(";")
        if not inside and line.lstrip().lower().startswith("data_"):
            if block:
                yield "\n".join(block)
            block = [line]
        elif block:
            block.append(line)
    if block:
        yield "\n".join(block)


def _cif_structure(text: str) -> Atoms | None:
    (block,) = parse_cif(io.StringIO(text))
    if not block.has_structure():
        if "_cell_length_a" in block:
            raise ValueError(f"its block data_{block.name} has a cell but no positions of atoms.")
        return None
    if missing := [tag for tag in CELL if tag not in block]:
        raise ValueError(f"its block data_{block.name} has no {', '.join(missing)}.")
    cell = [float(str(block[tag])) for tag in CELL]
    if min(cell) <= 0.0 or max(cell[3:]) >= 180.0:
        raise ValueError(
            f"its block data_{block.name} has the lengths {cell[:3]} and angles {cell[3:]}, which form no cell."
        )
    tags: dict[str, Any] = dict(block)
    if OCCUPANCY in tags:
        shares = tags[OCCUPANCY] if isinstance(tags[OCCUPANCY], list) else [tags[OCCUPANCY]] * len(block.get_symbols())
        tags[OCCUPANCY] = [share_of(share) for share in shares]
    return CIFBlock(block.name, tags).get_atoms()


def _sdf(stream: TextIO) -> Iterator[Found]:
    blocks = re.split(r"^\$\$\$\$.*\n?", stream.read(), flags=re.MULTILINE)
    return _each(_sdf_structure, (block for block in blocks if block.strip()))


def _sdf_structure(text: str) -> Atoms:
    if "V3000" in "".join(text.split("\n")[:4]):
        raise ValueError("it is an SDF of version V3000; only V2000 can be read.")
    atoms: Atoms = read_sdf(io.StringIO(text))
    return atoms


def _gromacs(stream: TextIO) -> Iterator[Found]:
    """Frames of a GRO file: title, number of atoms, a line per atom, box."""
    lines = stream.read().rstrip().split("\n")
    start = 0
    while start < len(lines):
        end = start + int(lines[start + 1]) + 3
        if end > len(lines):
            raise ValueError("it ends within a frame.")
        yield read_gromacs(io.StringIO("\n".join(lines[start:end]) + "\n"))
        start = end


def _poscar(stream: TextIO) -> Iterator[Found]:
    """Structures of a POSCAR or CONTCAR; velocities and predictor coordinates between them are skipped."""
    lines = stream.read().split("\n")
    start = 0
    while start == 0 or NO_POSCAR.sub("", "\n".join(lines[start:])).strip():
        yield read_vasp(io.StringIO("\n".join(lines[start:])))
        counts = start + 5 if _are_counts(lines[start + 5]) else start + 6  # VASP 5 has a line of symbols before
        selective = lines[counts + 1].strip()[:1] in ("s", "S")
        start = counts + 2 + selective + sum(map(int, lines[counts].partition("!")[0].split()))


def _are_counts(line: str) -> bool:
    return all(word.isdigit() for word in line.partition("!")[0].split())


def _json(stream: TextIO) -> Iterator[Found]:
    """pymatgen's structures, molecules and entries at any depth, one document or one per line; otherwise ASE's JSON."""
    text = stream.read()
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        try:
            data = [json.loads(line) for line in text.split("\n") if line.strip()]
        except json.JSONDecodeError:
            raise ValueError(f"it is no JSON: {error}.") from error
    documents = list(_documents(data, {}))
    if documents:
        yield from _each(_from_document, iter(documents))
    elif isinstance(data, dict) and "nextid" in data:
        yield from iread(io.StringIO(text), ":", format="json")
    elif isinstance(atoms := decode(text), Atoms):
        yield atoms
    else:
        raise ValueError("it is JSON without a structure of pymatgen or ASE.")


def _documents(data: Any, values: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Dictionaries of structures, each with the scalar values next to it, such as the energy of an entry."""
    if isinstance(data, list):
        for entry in data:
            if isinstance(entry, dict | list):
                yield from _documents(entry, values)
    elif isinstance(data, dict):
        if "sites" in data or "atoms_json" in data:
            yield data, values
            return
        beside = {key: value for key, value in data.items() if key[:1] != "@" and _is_plain(value)}
        for entry in data.values():
            yield from _documents(entry, beside)


def _is_plain(value: Any) -> bool:
    while isinstance(value, list) and value:
        value = value[0]
    return isinstance(value, SCALARS)


def _from_document(document: tuple[dict[str, Any], dict[str, Any]]) -> Atoms:
    data, values = document
    atoms: Atoms
    if "atoms_json" in data:  # pymatgen's MSONAtoms
        atoms = decode(data["atoms_json"])
        atoms.info.update(data.get("atoms_info") or {})
    else:
        from pymatgen.core.structure import Molecule, Structure

        atoms = to_atoms((Structure if "lattice" in data else Molecule).from_dict(data))
    for key, value in values.items():
        atoms.info.setdefault(key, np.array(value) if isinstance(value, list) else value)
    return atoms


BLOCKS: dict[str, Callable[[TextIO], Iterator[Found]]] = {
    "extxyz": _xyz,
    "cif": _cif,
    "sdf": _sdf,
    "gromacs": _gromacs,
    "vasp": _poscar,
    "json": _json,
}
"""Readers by ASE's name of the format: text stream -> structures, or errors in their place."""
