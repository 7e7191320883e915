"""The whole of a screening, from structures to a ranked table and a report."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from tqdm import tqdm

import ase_andersonn
from ase_andersonn.workflows._evaluate import check_calculator, check_count, check_positive, read_structure
from ase_andersonn.workflows._results import plain
from ase_andersonn.workflows.reason import reason
from ase_andersonn.workflows.relax import CELL_MODES, CellMode

from .cluster import WorkersDied, spread
from .columns import BY_NAME, OPTIONAL, PROPERTIES, Column, Row, columns_for, rounded
from .duplicates import duplicates, reduced_formula
from .expressions import Filter
from .hull import Hull, entry_of, is_entry
from .journal import Journal
from .report import write_report
from .tables import write_tables
from .work import Answer, Work

BLOCK_ATOMS = 256
"""Atoms of a block, about: what an interruption costs at most, and what a batch holds."""
ORDER = ("ok", "incomplete", "unconverged", "duplicate", "failed")
"""Of a row's status, in the table."""


@dataclass(frozen=True)
class Candidate:
    """A structure that was given: its name, and itself or the error in its place."""

    name: str
    atoms: Atoms | None
    error: str = ""


@dataclass(frozen=True)
class Screening:
    """A table of structures.

    Attributes:
        folder: where `table.csv`, `table.json`, `table.db`, `relaxed.xyz` and `report.html` are.
        columns: of the table.
        rows: ranked; values by names of columns, None where there is none.
        structures: the relaxed structure of each row, or None.
        curves: what the report draws of each row.
        sort: column by which they are ranked.
    """

    folder: Path
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    structures: tuple[Atoms | None, ...]
    curves: tuple[Mapping[str, Any], ...]
    sort: str

    @property
    def selected(self) -> tuple[Row, ...]:
        """The rows of which all filters hold, by rank."""
        return tuple(row for row in self.rows if row["selected"])


def screen(
    structures: Iterable[Any],
    calc: Any,
    folder: str | Path,
    *,
    properties: Iterable[str] = (),
    filters: Iterable[str] = (),
    sort: str | None = None,
    descending: bool = False,
    references: Iterable[Any] = (),
    classifier: Any = None,
    find_duplicates: bool = True,
    fmax: float = 0.01,
    steps: int = 500,
    cell: CellMode = "auto",
    min_length: float = 12.0,
    block_atoms: int = BLOCK_ATOMS,
    client: Any = None,
    patience: float = 120.0,
    resume: bool = False,
    identity: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Screening:
    """Relax structures in batches, compute properties, filter and rank them, and write table, structures and report.

    What was computed is kept block by block in a journal, so that a screening that ended in any way goes on where it
    was, with `resume=True`; its files are the same byte for byte as without the interruption, but for the times in the
    ASE database. Filters, ranking and references may be others then, and structures may have been added.

    Args:
        structures: ASE, pymatgen or phonopy structures, or paths; pairs of a name and one of these; or an error in the
            place of a structure that could not be read. Bad ones are rows of the table with an error.
        calc: any ASE calculator. Results should not depend on what it computed before: `AndersoNN` wants
            `warm_start=False, compile=False`, and `dtype="float64", tol=1e-9` for elastic constants and phonons.
        folder: for the results; it is made where there is none.
        properties: any of `bulk_modulus`, `elastic`, `phonons`, `label`.
        filters: see `expressions`; all of them have to hold.
        sort: column by which the table is ranked; None for `e_above_hull` with references, else `energy_per_atom`.
        descending: whether the largest is the first.
        references: pymatgen entries, whose energies are taken as they are, or structures (as above), which are relaxed
            with `calc`; they give `e_above_hull`.
        classifier: for `label`: has `predict_many(structures, progress_bar=False)`, as `StructureClassifier`.
        find_duplicates: whether a structure that is one before it over again, by pymatgen's StructureMatcher, is left
            out.
        fmax: eV/Å, of the relaxations.
        steps: of the relaxations at most.
        cell: see `relax_each`.
        min_length: Å, of the supercells of phonons.
        block_atoms: atoms that are computed together, and kept together in the journal, about.
        client: a Dask client; blocks are spread over its workers then, with the same results.
        patience: seconds without any worker after which that is given up.
        resume: whether the folder's screening is gone on with; the settings have to be the same.
        identity: what else the results depend on, such as checksums of model files, compared on resuming.
        progress: whether to show a bar on a terminal, with the time left.

    Raises:
        ValueError, TypeError: for arguments without a meaning, before anything is computed.
        FileExistsError: for a folder that holds a screening, without `resume`.
        InUseError: where another process works in the folder.
        RuntimeError: without workers for too long; what was computed is kept.
    """
    wanted = _checked_properties(properties, classifier)
    check_calculator(calc)
    check_positive(fmax=fmax, min_length=min_length, block_atoms=block_atoms, patience=patience)
    check_count(0, steps=steps)
    if cell not in CELL_MODES:
        raise ValueError(f"cell is {cell!r}; it is one of {', '.join(CELL_MODES)}.")
    given_references = [_reference(k, reference) for k, reference in enumerate(references)]
    columns = columns_for(wanted, bool(given_references))
    names = [column.name for column in columns if column.name not in ("rank", "selected")]
    tests = [Filter(text, names) for text in filters]
    sort = sort or ("e_above_hull" if given_references else "energy_per_atom")
    if sort not in names:
        raise ValueError(f"sort is {sort!r}; it is one of the columns, {', '.join(names)}.")
    work = Work(calc, wanted, classifier, fmax, steps, cell, min_length)
    settings = {
        "version": ase_andersonn.__version__,
        "calculator": [type(calc).__name__, plain(getattr(calc, "parameters", {}))],
        "properties": list(wanted),
        "fmax": fmax,
        "steps": steps,
        "cell": cell,
        "min_length": min_length,
        "block_atoms": block_atoms,
        "identity": plain(identity or {}),
    }
    target = Path(folder)
    with Journal(target, settings, resume=resume) as journal:
        candidates = [_candidate(k, given) for k, given in enumerate(structures)]
        crystals = {k: c.atoms for k, c in enumerate(candidates) if c.atoms is not None}
        copies = duplicates(crystals) if find_duplicates else {}
        compute = partial(_compute, journal, block_atoms, client, patience, progress)
        hull = None
        if given_references:
            hull = _hull(given_references, partial(compute, replace(work, properties=()), "reference"))
        answers = compute(work, "structure", {k: atoms for k, atoms in crystals.items() if k not in copies})
        rows = [_row(k, candidates, copies, answers.get(k), columns, hull) for k in range(len(candidates))]
        found = _ranked(target, columns, rows, answers, tests, sort, descending)
        write_tables(found)
        write_report(found, [test.text for test in tests])
    return found


def _checked_properties(properties: Iterable[str], classifier: Any) -> tuple[str, ...]:
    given = [properties] if isinstance(properties, str) else list(properties)
    if unknown := [name for name in given if name not in PROPERTIES]:
        raise ValueError(f"properties has {unknown[0]!r}; there are {', '.join(PROPERTIES)}.")
    if "label" in given and not callable(getattr(classifier, "predict_many", None)):
        raise ValueError(f"the property 'label' needs a classifier, as StructureClassifier(); it is {classifier!r}.")
    return tuple(name for name in PROPERTIES if name in given)


def _candidate(index: int, given: Any) -> Candidate:
    """A structure with its name; those without one are called by their place."""
    name, source = given if isinstance(given, tuple) and len(given) == 2 else (None, given)
    if name is None:
        name = str(source) if isinstance(source, str | Path) else f"#{index}"
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(name))
    try:
        return Candidate(shown, read_structure(source))
    except Exception as error:  # whatever is wrong with one structure
        return Candidate(shown, None, reason(error))


def _reference(index: int, given: Any) -> Any:
    """One of pymatgen's entries, or a candidate.

    Raises:
        ValueError: for a structure that cannot be read.
    """
    if is_entry(given):
        return given
    found = _candidate(index, given)
    if found.atoms is None:
        raise ValueError(f"the reference {found.name} cannot be used: {found.error}")
    return found


def _hull(given: Sequence[Any], compute: Any) -> Hull:
    own = {k: reference.atoms for k, reference in enumerate(given) if isinstance(reference, Candidate)}
    answers = compute(own)
    entries = [reference for reference in given if is_entry(reference)]
    for k, atoms in own.items():
        answer = answers[k]
        if not answer["converged"]:
            why = "; ".join(answer["errors"].values())
            raise ValueError(f"the reference {given[k].name} has no energy: {why}")
        entries.append(entry_of(atoms, answer["values"]["energy_per_atom"], given[k].name))
    return Hull(entries)


def _compute(
    journal: Journal,
    block_atoms: int,
    client: Any,
    patience: float,
    progress: bool,
    work: Work,
    kind: str,
    structures: Mapping[int, Atoms],
) -> dict[int, Answer]:
    """Answers by index: those of the journal, and the others computed."""
    blocks = list(_blocks(structures, block_atoms))
    keys = [_key(kind, [structures[k] for k in block]) for block in blocks]
    answers: dict[int, Answer] = {}
    todo: dict[str, list[int]] = {}
    for key, block in zip(keys, blocks, strict=True):
        if key in journal.found:
            answers |= zip(block, journal.found[key], strict=True)
        else:
            todo[key] = block
    with tqdm(
        total=len(structures),
        initial=len(answers),
        unit=f" {kind}s",
        disable=None if progress else True,
    ) as bar:
        for key, found in _results(work, {key: [structures[k] for k in todo[key]] for key in todo}, client, patience):
            if isinstance(found, WorkersDied):  # not kept: to be tried again on resuming
                found = [_lost(found) for _ in todo[key]]
            else:
                found = journal.write(key, found)
            answers |= zip(todo[key], found, strict=True)
            bar.update(len(todo[key]))
    same = {key: block for key, block in zip(keys, blocks, strict=True) if block[0] in answers}
    for key, block in zip(keys, blocks, strict=True):  # blocks alike are computed once
        if block[0] not in answers:
            answers |= {k: answers[other] for k, other in zip(block, same[key], strict=True)}
    return answers


def _results(work: Work, blocks: Mapping[str, list[Atoms]], client: Any, patience: float) -> Iterator[tuple[str, Any]]:
    if client is None:
        yield from ((key, work(block)) for key, block in blocks.items())
        return
    keys = list(blocks)
    for index, found in spread(work, list(blocks.values()), client, patience):
        yield keys[index], found


def _lost(error: WorkersDied) -> Answer:
    return {"values": {}, "errors": {"relaxation": str(error)}, "converged": False, "atoms": None, "curves": {}}


def _blocks(structures: Mapping[int, Atoms], block_atoms: int) -> Iterator[list[int]]:
    """Indices in their order, in blocks of so many atoms at least; the last one may have fewer."""
    block: list[int] = []
    held = 0
    for index, atoms in structures.items():
        if block and held + len(atoms) > block_atoms:
            yield block
            block, held = [], 0
        block.append(index)
        held += len(atoms)
    if block:
        yield block


def _key(kind: str, block: Sequence[Atoms]) -> str:
    """Checksum of all that a block's results depend on but the settings."""
    digest = hashlib.sha256()
    for atoms in block:
        digest.update(json.dumps(plain([c.todict() for c in atoms.constraints])).encode())
        arrays = {**atoms.arrays, "cell": atoms.cell.array, "pbc": atoms.pbc}
        for name in sorted(arrays):
            values = np.ascontiguousarray(arrays[name])
            data = values.tobytes() if values.dtype.kind in "biuf" else repr(values.tolist()).encode()
            digest.update(f"{name} {values.dtype.str} {values.shape} ".encode() + data)
    return f"{kind} {digest.hexdigest()}"


def _row(
    index: int,
    candidates: Sequence[Candidate],
    copies: Mapping[int, int],
    answer: Answer | None,
    columns: Sequence[Column],
    hull: Hull | None,
) -> Row:
    own = candidates[index]
    row: Row = {column.name: None for column in columns} | {"name": own.name, "selected": False}
    if own.atoms is None:
        return row | {"status": "failed", "error": own.error}
    row |= {"formula": reduced_formula(own.atoms), "n_atoms": len(own.atoms)}
    if answer is None:
        return row | {"status": "duplicate", "duplicate_of": candidates[copies[index]].name}
    row |= {name: rounded(BY_NAME[name], value) for name, value in answer["values"].items()}
    errors = dict(answer["errors"])
    if hull is not None and answer["converged"]:
        try:
            above = hull.above(own.atoms, answer["values"]["energy_per_atom"])
            row["e_above_hull"] = rounded(BY_NAME["e_above_hull"], above)
        except ValueError as error:
            errors["e_above_hull"] = str(error)
    status = "ok" if not errors else "incomplete" if answer["converged"] else "unconverged"
    if answer["atoms"] is None or row["energy_per_atom"] is None:
        status = "failed"
    texts = [text if name == "relaxation" else f"{name}: {text}" for name, text in errors.items()]
    return row | {"status": status, "error": "; ".join(texts) or None}


def _ranked(
    folder: Path,
    columns: Sequence[Column],
    rows: Sequence[Row],
    answers: Mapping[int, Answer],
    tests: Sequence[Filter],
    sort: str,
    descending: bool,
) -> Screening:
    """The rows in order: the selected ones, then the others by status, missing values last; like ones as given."""
    for row in rows:
        row["selected"] = row["status"] in ("ok", "incomplete") and all(test(row) for test in tests)
    present = [k for k, row in enumerate(rows) if row[sort] is not None]
    by_value = sorted(present, key=lambda k: rows[k][sort], reverse=descending)  # type: ignore[arg-type,return-value]
    places = {value: place for place, value in enumerate(dict.fromkeys(rows[k][sort] for k in by_value))}
    last = len(places)

    def place(k: int) -> tuple[int, int, int]:
        status = ORDER.index(str(rows[k]["status"]))
        return (0 if rows[k]["selected"] else 1 + max(status, 1)), places.get(rows[k][sort], last), k

    order = sorted(range(len(rows)), key=place)
    for rank, k in enumerate((k for k in order if rows[k]["selected"]), start=1):
        rows[k]["rank"] = rank
    absent = {name for name in OPTIONAL if all(row[name] is None for row in rows)}
    kept = tuple(column for column in columns if column.name not in absent)
    return Screening(
        folder,
        kept,
        tuple({column.name: rows[k][column.name] for column in kept} for k in order),
        tuple(_atoms(answers[k]["atoms"]) if k in answers else None for k in order),
        tuple(answers[k]["curves"] if k in answers else {} for k in order),
        sort,
    )


def _atoms(data: Any) -> Atoms | None:
    return None if data is None else Atoms(data["symbols"], data["positions"], cell=data["cell"], pbc=data["pbc"])
