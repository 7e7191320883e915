"""The one reader: every structure of every file, however it is packed; what cannot be read is an error in its place."""

import bz2
import codecs
import gzip
import io
import json
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.io.jsonio import encode
from pymatgen.core import Lattice, Molecule, Structure
from pymatgen.entries.computed_entries import ComputedStructureEntry
from pymatgen.io.ase import MSONAtoms

from ase_andersonn.structures.files import Found, read_file, structures_in
from ase_andersonn.structures.paths import expand, files_of, printable
from ase_andersonn.structures.reading import read_structure
from ase_andersonn.training import read_frames

CRYSTALS = [bulk("Cu"), bulk("Si"), bulk("NaCl", "rocksalt", 5.64)]
FORMULAS = ["Cu", "Si2", "NaCl"]
PACK: dict[str, Callable[..., io.IOBase]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}  # type: ignore[dict-item]
SALT = Structure(Lattice.cubic(5.6), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
HYDROXIDE = Molecule(["O", "H"], [[0, 0, 0], [0, 0, 1.0]], charge=-1)


def said(found: Found) -> str:
    """The formula, or the error."""
    return found.get_chemical_formula() if isinstance(found, Atoms) else f"error: {found}"


def formulas(path: Path) -> list[str]:
    return [said(found) for _, found in structures_in(path)]


def crystals(path: Path) -> Path:
    write(path, CRYSTALS, format="extxyz" if path.suffix == ".xyz" else None)
    return path


@pytest.mark.parametrize("name", ["a.extxyz", "a.xyz", "a.cif", "a.traj", "a.db", "a.json"])
def test_all_structures_of_a_file_packed_or_not(tmp_path: Path, name: str) -> None:
    path = crystals(tmp_path / name)
    wanted = [(f"{path}#{index}", formula) for index, formula in enumerate(["Cu", "Si2", "ClNa"])]
    assert [(name, said(found)) for name, found in structures_in(path)] == wanted
    for ending, opener in PACK.items():
        packed = tmp_path / f"{name}{ending}"
        with opener(packed, "wb") as file:
            file.write(path.read_bytes())
        assert formulas(packed) == ["Cu", "Si2", "ClNa"]
        assert formulas(packed.rename(tmp_path / f"renamed-{name}")) == ["Cu", "Si2", "ClNa"]


def test_trajectories_of_programs(tmp_path: Path) -> None:
    write(tmp_path / "XDATCAR", [bulk("Cu")] * 3)
    assert formulas(tmp_path / "XDATCAR") == ["Cu"] * 3
    write(tmp_path / "a.pdb", [molecule("H2O")] * 2)
    assert formulas(tmp_path / "a.pdb") == ["H2O"] * 2


@pytest.mark.parametrize(
    ("name", "formula"), [("a.sdf", "H2O"), ("a.gro", "Si8"), ("POSCAR", "Si2"), ("b.vasp", "Si2")]
)
def test_files_of_which_ase_reads_the_first_structure_alone(tmp_path: Path, name: str, formula: str) -> None:
    atoms = {"H2O": molecule("H2O"), "Si8": bulk("Si", cubic=True), "Si2": bulk("Si")}[formula]
    write(tmp_path / name, atoms)
    assert formulas(tmp_path / name) == [formula]
    text = (tmp_path / name).read_text()
    (tmp_path / name).write_text(3 * text)
    assert formulas(tmp_path / name) == [formula] * 3
    (tmp_path / name).write_text(text + text[: len(text) // 3])
    first, second = formulas(tmp_path / name)
    assert (first, "cannot be read" in second) == (formula, True)


def test_velocities_after_a_poscar_are_no_structure(tmp_path: Path) -> None:
    write(tmp_path / "CONTCAR", bulk("Si"))
    text = (tmp_path / "CONTCAR").read_text()
    lattice = "Lattice velocities and vectors\n 1\n 0 0 0\n\nCartesian\n 1 0 0\n"
    for tail in ("\n 0.0 0.1 -1E-3\n 0 0 0\n", lattice, "\n\n"):
        (tmp_path / "CONTCAR").write_text(text + tail)
        assert formulas(tmp_path / "CONTCAR") == ["Si2"]


def test_empty_lines_between_frames_end_nothing(tmp_path: Path) -> None:
    frame = "2\n\nSi 0 0 0\nSi 1 1 1\n"
    (tmp_path / "a.xyz").write_text(f"{frame}\n\n{frame}2\n\nSi 0 0 zero\nSi 1 1 1\n{frame}word\n{frame}")
    found = formulas(tmp_path / "a.xyz")
    assert [text[:5] for text in found] == ["Si2", "Si2", "error", "Si2", "error"]
    assert "structure 2" in found[2]
    assert "from structure 4 on, 'word' was found instead of a number of atoms" in found[4]


def test_one_bad_block_of_a_cif(tmp_path: Path) -> None:
    blocks = crystals(tmp_path / "a.cif").read_text().split("data_")
    note = "_publ_text\n;\ndata_of a text\n;\n"
    broken = blocks[2].replace("_atom_site_fract_z", "_atom_site_fract_y")
    text = "data_".join(["# a comment\n", "global\n_journal_year 2026\n" + note, blocks[1], broken, blocks[3]])
    (tmp_path / "b.cif").write_text(text)
    first, second, third = formulas(tmp_path / "b.cif")
    assert (first, second[:6], third) == ("Cu", "error:", "ClNa")
    with pytest.raises(ValueError, match=r"b\.cif cannot be read: structure 1: "):
        read_file(tmp_path / "b.cif")


@pytest.mark.parametrize("name", ["a.cif", "a.xyz", "POSCAR", "a.json"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32", "latin-1"])
def test_encodings(tmp_path: Path, name: str, encoding: str) -> None:
    write(tmp_path / name, bulk("Si"), format="extxyz" if name == "a.xyz" else None)
    text = (tmp_path / name).read_text().replace("\n", "\r\n")
    if name in ("a.cif", "POSCAR"):
        text = {"a.cif": "# caf\xe9\r\n", "POSCAR": "caf\xe9 "}[name] + text
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    (tmp_path / name).write_bytes(mark + text.encode(encoding))
    assert formulas(tmp_path / name) == ["Si2"]


def test_archives(tmp_path: Path) -> None:
    inside = [crystals(tmp_path / "a.cif"), crystals(tmp_path / "b.traj")]
    (tmp_path / "c.extxyz.xz").write_bytes(lzma.compress(crystals(tmp_path / "c.extxyz").read_bytes()))
    (tmp_path / "bad.cif").write_text("no crystal")
    (tmp_path / "notes.txt").write_text("of the day")
    inside += [tmp_path / "c.extxyz.xz", tmp_path / "bad.cif", tmp_path / "notes.txt"]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        for path in inside:
            zipped.write(path, f"folder/{path.name}")
        zipped.writestr("__MACOSX/folder/._a.cif", "x")
        zipped.writestr("../../outside.cif", inside[0].read_text())
    for mode in ("w", "w:gz", "w:xz"):
        with tarfile.open(tmp_path / f"a{mode[2:]}.tar", mode) as tarred:  # type: ignore[call-overload]
            for path in inside:
                tarred.add(path, f"folder/{path.name}")
    for name, outside in (("a.zip", 3), ("a.tar", 0), ("agz.tar", 0), ("axz.tar", 0)):
        found = list(structures_in(tmp_path / name))
        assert sum(isinstance(structure, Atoms) for _, structure in found) == 9 + outside
        assert found[0][0] == f"{tmp_path / name}/folder/a.cif#0"
        (error,) = [error for _, error in found if isinstance(error, Exception)]
        assert "folder/bad.cif cannot be read: it has no line that begins with data_" in str(error)
    assert not (tmp_path.parent / "outside.cif").exists()


def test_structures_of_pymatgen(tmp_path: Path) -> None:
    entry = ComputedStructureEntry(SALT, -5.0, entry_id="mp-1").as_dict()
    shared = Structure(Lattice.cubic(3.0), [{"Cu": 0.5, "Ni": 0.5}], [[0, 0, 0]])
    documents = {
        "one": (SALT.as_dict(), ["ClNa"]),
        "molecule": (HYDROXIDE.as_dict(), ["HO"]),
        "list": ([SALT.as_dict(), HYDROXIDE.as_dict()], ["ClNa", "HO"]),
        "by name": ({"a": SALT.as_dict(), "b": {"structure": SALT.as_dict(), "gap": 5.0}}, ["ClNa", "ClNa"]),
        "entries": ({"entries": [entry, entry]}, ["ClNa", "ClNa"]),
        "atoms": ([MSONAtoms(bulk("Cu")).as_dict()], ["Cu"]),
    }
    for name, (document, wanted) in documents.items():
        (tmp_path / "a.json").write_text(json.dumps(document))
        assert formulas(tmp_path / "a.json") == wanted, name
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(d.as_dict()) for d in (SALT, shared, HYDROXIDE)))
    first, second, third = formulas(tmp_path / "a.jsonl")
    assert (first, "disordered" in second, third) == ("ClNa", True, "HO")
    (tmp_path / "ase.json").write_text(encode(bulk("Cu")))
    assert formulas(tmp_path / "ase.json") == ["Cu"]


def test_values_beside_a_structure_are_labels(tmp_path: Path) -> None:
    entry = {"structure": SALT.as_dict(), "energy": -5.0, "forces": np.ones((2, 3)).tolist(), "data": {}}
    (tmp_path / "a.json").write_text(json.dumps({"entries": [entry]}))
    (frame,) = read_frames([str(tmp_path / "a.json")])
    assert frame.info["energy"] == -5.0
    assert frame.info["forces"].shape == (2, 3)
    assert read_file_charge(tmp_path) == -1.0


def read_file_charge(folder: Path) -> float:
    (folder / "m.json").write_text(json.dumps(HYDROXIDE.as_dict()))
    return float(read_file(folder / "m.json")[0].info["charge"])


UNREADABLE = {
    "a.cif": (b"", "has no structure: it is empty"),
    "b.cif": (b" \n", "has no structure: it is empty"),
    "c.cif": (b"\xef\xbb\xbf", "no line that begins with data_"),
    "d.cif": (b"data_x\n", "has no structure"),
    "e.cif": (b"data_x\n_cell_length_a 3\n", "a cell but no positions"),
    "a.xyz": (b"3\n\nC 0 0\n", "Frame has 1 atoms, expected 3"),
    "b.xyz": (b"3\n", "ends within a frame"),
    "a.json": (b"{", "it is no JSON"),
    "b.json": (b'{"a": [1, null]}', "without a structure of pymatgen or ASE"),
    "POSCAR": (b"Si\n1.0\n", "cannot be read"),
    "OUTCAR": (b"nothing", "cannot be read"),
    "vasprun.xml": (b"<a>", "cannot be read"),
    "a.traj": (b"abc", "cannot be read"),
    "a.db": (b"abc", "cannot be read"),
    "a.sdf": (b"a\nb\n", "cannot be read"),
    "b.sdf": (b"a\n\n\n  0  0  0     0  0            999 V3000\n", "V3000; only V2000 can be read"),
    "a.gro": (b"a\n3\n", "it ends within a frame"),
    "a.unknown": (b"abc", "its format cannot be detected"),
    "nothing": (b"abc", "its format cannot be detected"),
    "a.cif.zst": (b"\x28\xb5\x2f\xfd" + bytes(9), "compressed by zstd, which cannot be read"),
    "a.cif.gz": (gzip.compress(b"data_x\n" * 99)[:-20], "Compressed file ended"),
    "b.cif.gz": (gzip.compress(b""), "has no structure: it is empty"),
    "a.zip": (b"PK\x03\x04", "cannot be read"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_one_clear_error(tmp_path: Path, name: str) -> None:
    data, text = UNREADABLE[name]
    (tmp_path / name).write_bytes(data)
    ((found, error),) = structures_in(tmp_path / name)
    assert found == str(tmp_path / name)
    assert type(error) is ValueError
    assert str(error).startswith(str(tmp_path / name))
    assert text in str(error)
    assert "\n" not in str(error)
    with pytest.raises(ValueError, match=r"cannot be read|has no structure|compressed by"):
        read_file(tmp_path / name)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file .*a\.cif \(working directory"):
        read_file(tmp_path / "a.cif")
    with pytest.raises(ValueError, match="is a folder"):
        read_file(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="no regular file"):
        read_file(tmp_path / "pipe")


def test_files_of_folders(tmp_path: Path) -> None:
    for name in ("b.cif", "deep/er/a.xyz", ".hidden/c.cif", "deep/.d.cif", "notes.txt", "labels.csv", "deep/@.xyz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "broken.cif").symlink_to(tmp_path / "nowhere")
    names = ["b.cif", "broken.cif", "deep/@.xyz", "deep/er/a.xyz"]
    assert [str(path.relative_to(tmp_path)) for path in files_of(str(tmp_path))] == names
    assert files_of(str(tmp_path / "*"), tmp_path / "b.cif")[0].name == "broken.cif"
    assert len(expand([str(tmp_path), str(tmp_path / "b.cif")])) == 4
    assert files_of("C" * 5000) == []
    with pytest.raises(FileNotFoundError, match="no file matches"):
        expand([str(tmp_path / ".hidden" / "*.xyz")])


def test_a_name_with_an_at_sign_or_no_utf_8(tmp_path: Path) -> None:
    assert len(read_file(crystals(tmp_path / "a@1.cif"))) == 3
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.cif"))
    try:
        write(tmp_path / "a.cif", bulk("Si"))
        (tmp_path / "a.cif").rename(path)
    except OSError:
        pytest.skip("the file system takes UTF-8 alone")
    ((name, found),) = structures_in(path)
    assert name == printable(path) == f"{tmp_path}/caf\\xe9.cif"
    assert said(found) == "Si2"


def test_the_last_structure_of_several_gives_a_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="has 3 structures, of which the last is used"):
        assert len(read_structure(crystals(tmp_path / "a.cif"))) == 2


def test_labelled_frames_of_a_folder(tmp_path: Path) -> None:
    for index in range(3):
        atoms = bulk("Cu")
        atoms.calc = SinglePointCalculator(atoms, energy=float(index))
        write(tmp_path / f"{index}.extxyz", [atoms, atoms])
    assert [frame.get_potential_energy() for frame in read_frames([str(tmp_path)])] == [0, 0, 1, 1, 2, 2]


SILICON = ["Si2", "1.0", "0 2.7 2.7", "2.7 0 2.7", "2.7 2.7 0", "Si", "2", "Direct", "0 0 0", "0.25 0.25 0.25"]
FRAME = ["2", 'Lattice="0 2.7 2.7 2.7 0 2.7 2.7 2.7 0" Properties=species:S:1:pos:R:3', "Si 0 0 0", "Si 1.3 1.3 1.3"]
LENGTHS = [f"_cell_length_{x} 4.0" for x in "abc"] + [f"_cell_angle_{x} 90" for x in ("alpha", "beta", "gamma")]
CRYSTAL = [
    "data_one",
    *LENGTHS,
    "loop_",
    "_atom_site_type_symbol",
    *(f"_atom_site_fract_{x}" for x in "xyz"),
    "Cu 0 0 0",
]


@pytest.mark.parametrize(
    ("name", "lines", "line", "text", "words"),
    [
        ("a.vasp", SILICON, 2, "0 2.7", "a line or a value is missing"),
        ("a.vasp", SILICON, 2, "0 2.7 x", "'x' stands where a number is expected"),
        ("a.vasp", SILICON, 5, "Xx", "there is no element 'Xx'"),
        ("a.vasp", SILICON, 6, "two", "'two' stands where a whole number is expected"),
        ("a.vasp", SILICON, 6, "3", "a line or a value is missing"),
        ("a.vasp", SILICON, 8, "0 0 q", "'q' stands where a number is expected"),
        ("a.vasp", SILICON[:5], 0, "Si2", "a line or a value is missing"),
        ("a.xyz", FRAME, 0, "two", "'two' was found instead of a number of atoms"),
        ("a.xyz", FRAME, 0, "5", "Frame has 2 atoms, expected 5"),
        ("a.xyz", FRAME, 2, "Si 0 zero 0", "'zero' stands where a number is expected"),
        ("a.xyz", FRAME, 2, "Si 0 0", "a line or a value is missing"),
        ("a.xyz", FRAME, 2, "Qq 0 0 0", "there is no element 'Qq'"),
        ("a.cif", CRYSTAL, 1, "_cell_length_a abc", "'abc' stands where a number is expected"),
        ("a.cif", CRYSTAL, 1, "_cell_length_q 4.0", "has no _cell_length_a"),
        ("a.cif", CRYSTAL, 4, "_cell_angle_alpha 200", "angles [200.0, 90.0, 90.0], which form no cell"),
        ("a.cif", CRYSTAL, 1, "_cell_length_a 0", "lengths [0.0, 4.0, 4.0] and angles"),
        ("a.cif", CRYSTAL, -1, "Qq 0 0 0", "there is no element 'Qq'"),
        ("a.cif", CRYSTAL, -1, "Cu 0 0 here", "a line or a value is missing, impossible"),
        ("a.json", ["{}"], 0, '[{"lattice": {"matrix": [[1, 0]]}, "sites": []}]', "a line or a value is missing"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_words_of_files(
    tmp_path: Path, name: str, lines: list[str], line: int, text: str, words: str
) -> None:
    """The file once, what is wrong, what is expected; nothing of Python's or NumPy's."""
    changed = list(lines)
    changed[line] = text
    (tmp_path / name).write_text("\n".join(changed) + "\n")
    ((_, error),) = structures_in(tmp_path / name)
    said = str(error)
    assert said.startswith(f"{tmp_path / name} cannot be read: ")
    assert (words in said, said.count(name), "\n" in said) == (True, 1, False), said
    for leak in ("literal", "convert", "Error", "broadcast", "ufunc", "shape", "array"):
        assert leak not in said
