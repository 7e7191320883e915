"""Labels of many files as a table: which structures there are, the rows, and a summary."""

import csv
import glob
import io
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ase.db import connect
from ase.io import iread

from ase_andersonn.classifier import UNCERTAIN, Label
from ase_andersonn.inputs.sources import structure_from
from ase_andersonn.labels import LabelSet
from ase_andersonn.writing import check_folder, write_whole

MANY = (".xyz", ".extxyz", ".traj", ".db", ".sdf")
"""Files that may hold several structures."""
FORMATS = (".csv", ".json", ".db")
OTHERS = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".txt", ".md", ".csv", ".yaml", ".yml", ".py")
"""Files of a folder that are no structures, such as notes and the picture of the last run."""
Answer = Label | Exception


def named_structures(given: Iterable[str], names: list[str], *, out: Path | None = None) -> Iterator[Any]:
    """Structures, one after another, for `StructureClassifier.predict_many`; `names` grows as they are taken.

    Args:
        given: files, folders (all files in them and in their folders, but `OTHERS` and what begins with a dot), glob
            patterns, or SMILES. Structures of a file with several are named `file#0`, `file#1`, …
        names: of the structures.
        out: a table that is no structure, even if it lies in one of the folders.
    """
    for text in given:
        for source in _sources(text, out):
            if isinstance(source, Path) and source.suffix.lower() in MANY:
                yield from _frames(source, names)
            else:
                names.append(str(source))
                yield source


def _sources(text: str, out: Path | None) -> list[Path | str]:
    path = Path(text)
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file() and not _hidden(p.relative_to(path)))
        return [file for file in files if not _same(file, out) and file.suffix.lower() not in OTHERS]
    if path.is_file():
        return [path]
    found = sorted(glob.glob(text, recursive=True))
    return [Path(name) for name in found if not _same(Path(name), out)] if found else [text]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _same(path: Path, out: Path | None) -> bool:
    return out is not None and path.resolve() == out.resolve()


def _frames(path: Path, names: list[str]) -> Iterator[Any]:
    """All structures of a file; what cannot be read ends it with an error in the place of a structure."""
    form = "extxyz" if path.suffix.lower() in (".xyz", ".extxyz") else None
    k = 0
    try:
        for atoms in iread(path, ":", format=form):
            names.append(f"{path}#{k}")
            k += 1
            yield atoms
    except Exception as error:
        names.append(f"{path}#{k}" if k else str(path))
        yield ValueError(f"{path} cannot be read: {type(error).__name__}: {error}")
        return
    if k == 0:
        names.append(str(path))
        yield ValueError(f"{path} holds no structure.")


def check_table(out: Path | None, given: Iterable[str] = ()) -> None:
    """Raise ValueError where a table cannot be written in the format that a file name asks for, or is an input."""
    if out is not None and out.suffix.lower() not in FORMATS:
        raise ValueError(f"{out} has an unknown ending; tables are written as {', '.join(FORMATS)}.")
    if any(_same(Path(text), out) for text in given):
        raise ValueError(f"{out} is one of the files to be read; name another one for the table.")
    check_folder(out)


def rows(names: Sequence[str], answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """One row a structure: name, label, confidence, novelty, probabilities, error."""
    table = []
    for name, answer in zip(names, answers, strict=True):
        if isinstance(answer, Label):
            row: dict[str, Any] = {"name": name, "label": answer.name, "best": answer.best}
            row |= {"confidence": answer.confidence, "novelty": answer.novelty, "spread": answer.spread}
            row |= {f"p({label})": p for label, p in answer.probabilities.items()} | {"error": None}
        else:
            row = {"name": name, "label": None, "error": str(answer)}
        table.append(row)
    return table


def write_answers(out: Path, names: Sequence[str], answers: Sequence[Answer], structures: Iterable[Any]) -> None:
    """Write the table as CSV, JSON, or an ASE database with the structures; whole, in the place of an existing file.

    Args:
        out: file; its ending says the format.
        names: of the structures.
        answers: labels or errors.
        structures: the same structures once more, read only for a database: thousands are not kept in memory.

    Raises:
        ValueError: for another ending.
    """
    check_table(out)
    table = rows(names, answers)
    if out.suffix.lower() == ".json":
        data = (json.dumps(table, indent=1, ensure_ascii=False) + "\n").encode()
    elif out.suffix.lower() == ".csv":
        data = _as_csv(table).encode()
    else:
        data = _as_database(table, structures)
    write_whole(out, data)


def _as_csv(table: Sequence[dict[str, Any]]) -> str:
    columns = dict.fromkeys(key for row in sorted(table, key=len, reverse=True) for key in row)
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, columns)
    writer.writeheader()
    writer.writerows(table)
    return stream.getvalue()


def _as_database(table: Sequence[dict[str, Any]], structures: Iterable[Any]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.db"
        with connect(path) as database:
            for row, structure in zip(table, structures, strict=True):
                if row["label"] is not None:
                    pairs = {key: row[key] for key in ("label", "confidence", "novelty")}
                    database.write(structure_from(structure), key_value_pairs=pairs, data=row)
        return path.read_bytes()


def failures(names: Sequence[str], answers: Sequence[Answer]) -> list[tuple[str, Exception]]:
    """Names and errors of the structures without a label."""
    return [(name, answer) for name, answer in zip(names, answers, strict=True) if isinstance(answer, Exception)]


def summary(answers: Sequence[Answer], labels: LabelSet) -> str:
    """How many structures have which label, as a table of a few lines."""
    found = [answer for answer in answers if isinstance(answer, Label)]
    names = [*labels.labels, UNCERTAIN]
    width = max(map(len, [*names, "unusual", "failed"]))
    lines = [f"{'label':<{width}}  {'number':>8}  {'share':>7}  {'mean confidence':>15}"]
    for name in names:
        own = [answer.confidence for answer in found if answer.name == name]
        if own or name != UNCERTAIN:
            mean = f"{sum(own) / len(own):.3f}" if own else "-"
            lines.append(f"{name:<{width}}  {len(own):>8}  {len(own) / max(len(found), 1):>7.1%}  {mean:>15}")
    lines.append(f"{'unusual':<{width}}  {sum(answer.unusual for answer in found):>8}")
    lines.append(f"{'failed':<{width}}  {len(answers) - len(found):>8}")
    return "\n".join(lines)
