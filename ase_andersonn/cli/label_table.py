"""Labels of many files as a table: which structures there are, the rows, and a summary."""

import csv
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ase.db import connect

from ase_andersonn.atomic_write import atomic_write
from ase_andersonn.classifier import UNCERTAIN, Prediction
from ase_andersonn.labels import LabelSet
from ase_andersonn.structures.files import structures_in
from ase_andersonn.structures.paths import files_of, printable
from ase_andersonn.structures.reading import structure_from

from .outputs import check_table

Answer = Prediction | Exception


def named_structures(given: Iterable[str], names: list[str], *, out: Path | None = None) -> Iterator[Any]:
    """Structures, one after another, for `StructureClassifier.predict_many`; `names` grows as they are taken.

    Args:
        given: files, folders and glob patterns as `files_of` takes them, or SMILES. All structures of a file are taken,
            named as `structures_in` does.
        names: of the structures.
        out: a table that is no structure, even if it lies in one of the folders.

    Yields:
        a structure, a SMILES, or an error in its place.
    """
    for text in given:
        try:
            files = files_of(text, out)
        except OSError as error:
            names.append(printable(text))
            yield error
            continue
        for file in files:
            for name, found in structures_in(file):
                names.append(name)
                yield found
        if not files and not os.path.isdir(text):
            names.append(printable(text))
            yield text


def rows(names: Sequence[str], answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """One row a structure: name, label, what `Prediction` says of it, warning, error."""
    table = []
    for name, answer in zip(names, answers, strict=True):
        if isinstance(answer, Prediction):
            row: dict[str, Any] = {"name": _encodable(name), "label": answer.name, "best": answer.best}
            row |= {
                "confidence": answer.confidence,
                "out_of_distribution": answer.out_of_distribution,
                "std": answer.std,
            }
            row |= {f"p({label})": p for label, p in answer.probabilities.items()}
            row |= {"unusual": answer.unusual, "warning": answer.warning, "error": None}
        else:
            row = {"name": _encodable(name), "label": None, "error": _encodable(str(answer))}
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
    atomic_write(out, data)


def write_or_keep(
    out: Path, names: Sequence[str], answers: Sequence[Answer], structures: Callable[[], Iterable[Any]]
) -> str:
    """As `write_answers`; where that fails, as on a full disk, the table is kept in the folder for temporary files.

    Returns:
        what went wrong, and where the table is; empty where it was written.
    """
    try:
        write_answers(out, names, answers, structures())
    except Exception as error:  # whatever it was, the answers took long
        wrong = f"{out} could not be written: {error or type(error).__name__}"
    else:
        return ""
    for ending in dict.fromkeys((out.suffix.lower(), ".csv")):
        try:
            kept = Path(tempfile.mkdtemp(prefix="andersonn-")) / f"labels{ending}"
            write_answers(kept, names, answers, structures())
        except Exception:
            continue
        return f"{wrong}. The table is in {kept} instead."
    return f"{wrong}. The table could not be kept elsewhere either; it is:\n{_as_csv(rows(names, answers))}"


def _encodable(text: str) -> str:
    """The text with escapes for what no encoding holds, as parts of file names that are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


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
                    pairs = {key: row[key] for key in ("label", "confidence", "out_of_distribution")}
                    database.write(structure_from(structure), key_value_pairs=pairs, data=row)
        return path.read_bytes()


def failures(names: Sequence[str], answers: Sequence[Answer]) -> list[tuple[str, Exception]]:
    """Names and errors of the structures without a label."""
    return [(name, answer) for name, answer in zip(names, answers, strict=True) if isinstance(answer, Exception)]


def summary(answers: Sequence[Answer], labels: LabelSet) -> str:
    """How many structures have which label, as a table of a few lines."""
    found = [answer for answer in answers if isinstance(answer, Prediction)]
    names = [*labels.labels, UNCERTAIN]
    width = max(map(len, [*names, "unusual", "warned of", "failed"]))
    lines = [f"{'label':<{width}}  {'number':>8}  {'share':>7}  {'mean confidence':>15}"]
    for name in names:
        own = [answer.confidence for answer in found if answer.name == name]
        if own or name != UNCERTAIN:
            mean = f"{sum(own) / len(own):.3f}" if own else "-"
            lines.append(f"{name:<{width}}  {len(own):>8}  {len(own) / max(len(found), 1):>7.1%}  {mean:>15}")
    lines.append(f"{'unusual':<{width}}  {sum(answer.unusual for answer in found):>8}")
    lines.append(f"{'warned of':<{width}}  {sum(answer.warning is not None for answer in found):>8}")
    lines.append(f"{'failed':<{width}}  {len(answers) - len(found):>8}")
    return "\n".join(lines)
