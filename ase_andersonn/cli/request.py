"""What a command for properties is asked for: structures to read, a result for each, files to write.

Each structure is a line of its own, also where it fails; the exit status is 1 if any fails. What was computed is
written even where others fail or the rest is interrupted.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from ase_andersonn.workflows.reason import reason

from .errors import FAILED, plain_errors

Results = Sequence[tuple[str, Any]]
"""Names of structures, and the result of each or the error in its place."""


@dataclass(frozen=True)
class Request:
    """What the user gave besides the workflow's own options."""

    files: Sequence[str]
    model: str | None
    device: str
    out: Path | None
    plot: Path | None
    as_json: bool
    structures: Path | None = None

    def check(self, **positive: float | None) -> None:
        """Refuse files that are not there, and outputs that cannot be written, before anything is loaded.

        Args:
            positive: options that have to be above 0.
        """
        from ase_andersonn.pretrained.catalog import model_files

        from .outputs import check_output, check_picture

        if self.out is not None and self.out.suffix.lower() != ".json":
            raise ValueError(f"{self.out} has an unknown ending; results are written as .json.")
        if self.out and self.structures and self.out.resolve() == self.structures.resolve():
            raise ValueError(f"--out and --structures are both {self.out}; name two files.")
        check_output(self.out, self.files)
        check_output(self.structures, self.files)
        check_picture(self.plot)
        self.paths()
        if self.model is not None:
            model_files(self.model)
        if positive:
            from ase_andersonn.workflows._evaluate import check_positive

            check_positive(**{name: value for name, value in positive.items() if value is not None})

    def calculator(self) -> Any:
        from ase_andersonn.calculator import AndersoNN

        return AndersoNN(self.model, device=self.device)

    def paths(self) -> list[Path]:
        """The files to be read; what is to be written is none of them."""
        from ase_andersonn.structures.paths import expand

        return expand(self.files, skip=[path for path in (self.out, self.structures) if path is not None])

    def given(self) -> Iterator[tuple[str, Any]]:
        """Names and structures; an error where one cannot be read."""
        from ase_andersonn.structures.files import structures_in

        for path in self.paths():
            yield from structures_in(path)


def run(
    request: Request, compute: Callable[[Any, Any], Any], line: Callable[[Any], str], **positive: float | None
) -> None:
    """Compute a result for each structure, and say and write what came out."""
    with plain_errors():
        request.check(**positive)
        calc = request.calculator()
        results: list[tuple[str, Any]] = []
        try:
            for name, atoms in request.given():
                with named_warnings(name):
                    found = _result(compute, atoms, calc)
                results.append((name, found))
                say(request, name, found, line)
        finally:
            write_results(request, results)
    exit_status(results)


@contextmanager
def named_warnings(name: str = "") -> Iterator[None]:
    """Warnings as one line, which says what structure they are of where there is a name."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"warning: {name and f'{name}: '}{message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


def exit_status(results: Results) -> None:
    """Exit status 1 where any structure has no result."""
    if any(_failure(found) for _, found in results):
        raise typer.Exit(FAILED)


def say(request: Request, name: str, found: Any, line: Callable[[Any], str]) -> None:
    """Print the line of a structure."""
    if why := _failure(found):
        file = name.partition("#")[0]  # which errors of reading begin with
        typer.echo(f"failed: {why}" if why.startswith(file) else f"failed: {name}: {why}", err=True)
    elif not request.as_json:
        typer.echo(f"{name}: {line(found)}")


def write_results(request: Request, results: Results) -> None:
    """Write files and pictures as far as they are asked for; one that fails keeps none of the others from it.

    Raises:
        OSError, ValueError: the first error, at the end.
    """
    if not results:
        return
    good = [found for _, found in results if not _failure(found)]
    text = json.dumps([_record(name, found) for name, found in results], indent=1)
    errors: list[Exception] = []
    writers: tuple[Callable[[], None], ...] = (
        lambda: _write_text(request.out, text + "\n"),
        lambda: _write_structures(request.structures, good),
        lambda: typer.echo(text + "\n" if request.as_json else "", nl=False),
        lambda: _draw(request.plot, good),
    )
    for write in writers:
        try:
            write()
        except Exception as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _write_text(path: Path | None, text: str) -> None:
    from ase_andersonn.atomic_write import atomic_write

    if path is not None:
        atomic_write(path, text.encode())


def _write_structures(path: Path | None, good: Sequence[Any]) -> None:
    import io

    from ase.io import write

    if path is not None and good:
        text = io.StringIO()
        write(text, [found.atoms for found in good], format="extxyz")
        _write_text(path, text.getvalue())


def _draw(path: Path | None, good: Sequence[Any]) -> None:
    if path is not None:
        for k, found in enumerate(good):
            found.plot(path.with_stem(f"{path.stem}-{k}") if len(good) > 1 else path)


def _result(compute: Callable[[Any, Any], Any], atoms: Any, calc: Any) -> Any:
    if isinstance(atoms, Exception):
        return atoms
    try:
        return compute(atoms, calc)
    except Exception as error:  # whatever a library raised: a bad structure is one bad line
        return error


def _failure(found: Any) -> str:
    """Why a structure has no result, in one line; empty where it has one."""
    return reason(found) if isinstance(found, Exception) else getattr(found, "error", None) or ""


def _record(name: str, found: Any) -> dict[str, Any]:
    entries = {} if isinstance(found, Exception) else found.to_dict()
    why = _failure(found)
    return {"name": name} | entries | ({"error": why} if why else {})
