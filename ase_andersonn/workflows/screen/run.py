"""Screening of structures: from the structures to a ranked table and a report."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ase_andersonn
from ase_andersonn.workflows._evaluate import check_calculator, check_count, check_positive, read_structure
from ase_andersonn.workflows._results import plain
from ase_andersonn.workflows.reason import reason
from ase_andersonn.workflows.relax import CELL_MODES, CellMode

from .blocks import BLOCK_ATOMS, BlockComputation
from .columns import PROPERTIES, columns_for
from .duplicates import duplicates
from .expressions import Filter
from .hull import Hull, entry_of, is_entry
from .journal import Journal
from .ranking import Candidate, Screening, ranked, table_row
from .report import write_report
from .tables import write_tables
from .work import Work


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
    conditions = [Filter(text, names) for text in filters]
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
        compute = BlockComputation(journal, block_atoms, client, patience, progress)
        hull = None
        if given_references:
            hull = _hull(given_references, partial(compute, replace(work, properties=()), "reference"))
        results = compute(work, "structure", {k: atoms for k, atoms in crystals.items() if k not in copies})
        rows = [table_row(k, candidates, copies, results.get(k), columns, hull) for k in range(len(candidates))]
        found = ranked(target, columns, rows, results, conditions, sort, descending)
        write_tables(found)
        write_report(found, [condition.text for condition in conditions])
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
    own = {
        k: reference.atoms
        for k, reference in enumerate(given)
        if isinstance(reference, Candidate) and reference.atoms is not None
    }
    results = compute(own)
    entries = [reference for reference in given if is_entry(reference)]
    for k, atoms in own.items():
        result = results[k]
        if not result["converged"]:
            why = "; ".join(result["errors"].values())
            raise ValueError(f"the reference {given[k].name} has no energy: {why}")
        entries.append(entry_of(atoms, result["values"]["energy_per_atom"], given[k].name))
    return Hull(entries)
