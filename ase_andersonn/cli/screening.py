"""The command for screening: many structures to a ranked table and a report."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import FAILED
from .outputs import print_json
from .properties import AsJson, Device, Files, Fmax, MinLength, Model

TIGHT = ("elastic", "phonons")
"""Properties whose derivatives want double precision and a tight tolerance."""
SHOWN = 10
"""Structures that are listed at the end."""
BAD = ("failed", "unconverged", "incomplete")


def screen(
    files: Files,
    out: Annotated[Path, typer.Option(help="Folder for the results: table, relaxed structures, report.")],
    model: Model = None,
    device: Device = "auto",
    properties: Annotated[str, typer.Option(help="Some of bulk_modulus, elastic, phonons, label; with commas.")] = "",
    filters: Annotated[list[str] | None, typer.Option("--filter", help="As 'bulk_modulus > 50'; all hold.")] = None,
    sort: Annotated[str | None, typer.Option(help="Column by which structures are ranked.")] = None,
    descending: Annotated[bool, typer.Option("--descending", help="The largest first.")] = False,
    reference: Annotated[
        list[str] | None, typer.Option(help="pymatgen entries (JSON), or structures, for energies above the hull.")
    ] = None,
    classifier: Annotated[str | None, typer.Option(help="Of the labels; 'electronic' if not given.")] = None,
    keep_duplicates: Annotated[bool, typer.Option("--keep-duplicates", help="Compute duplicates too.")] = False,
    fmax: Fmax = 0.01,
    steps: Annotated[int, typer.Option(help="Steps of a relaxation at most.")] = 500,
    cell: Annotated[str, typer.Option(help="auto, fixed, free, constant_volume or hydrostatic.")] = "auto",
    min_length: MinLength = 12.0,
    cluster: Annotated[str | None, typer.Option(help="Dask: local, or a scheduler's address.")] = None,
    patience: Annotated[float, typer.Option(help="Seconds without any worker after which it is given up.")] = 120.0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the screening in the folder, if any.")] = False,
    as_json: AsJson = False,
) -> None:
    """Relax, compute, filter and rank many structures.

    What was computed is kept at once, so that --resume goes on after an end of any kind; filters, ranking and
    references may be others then. The exit status is 1 where any structure has an error, which is in its row.

    Example: andersonn screen cifs/ --properties bulk_modulus,label --filter "bulk_modulus > 50" --out screening
    """
    from ase_andersonn.atomic_write import check_new_folder
    from ase_andersonn.pretrained.catalog import CLASSIFIERS, DEFAULT_MODEL, model_files
    from ase_andersonn.structures.paths import expand
    from ase_andersonn.workflows.screen import screen as workflow
    from ase_andersonn.workflows.screen.journal import NAME
    from ase_andersonn.workflows.screen.tables import FILES

    wanted = [name.strip() for name in properties.split(",") if name.strip()]
    paths = expand(files, skip=[out / name for name in (*FILES, NAME)])
    references = expand(reference or ())
    check_new_folder(out)
    identity = {"model": _digest(model_files(model or DEFAULT_MODEL))}
    labeller = None
    if "label" in wanted:
        identity["classifier"] = _digest(model_files(classifier or "electronic", CLASSIFIERS))
    elif classifier is not None:
        raise ValueError("--classifier is given without the property label; add it to --properties.")

    from ase_andersonn.calculator import AndersoNN

    accuracy: dict[str, Any] = {"dtype": "float64", "tol": 1e-9} if set(wanted) & set(TIGHT) else {}
    calc = AndersoNN(model, device=device, warm_start=False, compile=False, **accuracy)
    if "label" in wanted:
        from ase_andersonn.classifier import StructureClassifier

        labeller = StructureClassifier(classifier, device=device)
    with _client(cluster) as client:
        known: Any = cell  # the workflow refuses others
        found = workflow(
            _structures(paths), calc, out, properties=wanted, filters=filters or (), sort=sort, descending=descending,
            references=_references(references), classifier=labeller, find_duplicates=not keep_duplicates, fmax=fmax,
            steps=steps, cell=known, min_length=min_length, client=client, patience=patience, resume=resume,
            identity=identity, progress=True,
        )  # fmt: skip
    for row in found.rows:
        if row["status"] in BAD:
            typer.echo(_failure(row), err=True)
    print_json({"rows": found.rows}) if as_json else typer.echo(_summary(found))
    if any(row["status"] in BAD for row in found.rows):
        raise typer.Exit(FAILED)


def _structures(paths: list[Path]) -> Iterator[tuple[str, Any]]:
    from ase_andersonn.structures.files import structures_in

    for path in paths:
        yield from structures_in(path)


def _references(paths: list[Path]) -> Iterator[Any]:
    from ase_andersonn.workflows.screen.hull import read_entries

    for path in paths:
        yield from read_entries(path) or _structures([path])


def _digest(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


@contextmanager
def _client(cluster: str | None) -> Iterator[Any]:
    """A Dask client, and the cluster it was started for, closed at the end; None without."""
    if cluster is None:
        yield None
        return
    from ase_andersonn.tiles.distributed import connect

    with connect(cluster) as client:
        try:
            yield client
        finally:
            if cluster == "local":
                client.cluster.close()


def _failure(row: Any) -> str:
    name, error = row["name"], str(row["error"])
    return f"{row['status']}: {error if error.startswith(name.partition('#')[0]) else f'{name}: {error}'}"


def _summary(found: Any) -> str:
    selected = found.selected
    lines = [f"{len(selected)} of {len(found.rows)} structures selected; table and report in {found.folder}"]
    units = {column.name: column.unit for column in found.columns}
    sort = found.sort
    for row in selected[:SHOWN]:
        value = "" if row[sort] is None else f"  {sort} {row[sort]} {units[sort]}".rstrip()
        lines.append(f"{row['rank']:>4}  {row['name']}  {row['formula']}{value}")
    return "\n".join([*lines, *([f"   … and {len(selected) - SHOWN} more"] if len(selected) > SHOWN else [])])


COMMANDS = (screen,)
