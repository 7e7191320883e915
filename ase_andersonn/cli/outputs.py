"""What a command writes: JSON on the terminal, and whether files can be written, asked before anything is computed.

Importing this loads no heavy library.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

from ase_andersonn.atomic_write import check_folder, why_unwritable

TABLES = (".csv", ".json", ".db")
PICTURES = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".eps", ".ps", ".tif", ".tiff", ".webp")


def print_json(data: Any) -> None:
    """One JSON document on stdout; what is not finite is null."""
    from ase_andersonn.workflows._results import plain

    typer.echo(json.dumps(plain(data), indent=1, allow_nan=False))


def check_table(out: Path | None, given: Iterable[str] = ()) -> str:
    """Refuse a table of unknown format, one without a folder, and one that is an input.

    Returns:
        why the file cannot be written where it is; empty where it can.

    Raises:
        ValueError, FileNotFoundError: for such a table.
    """
    if out is None:
        return ""
    if out.suffix.lower() not in TABLES:
        raise ValueError(f"{out} has an unknown ending; tables are written as {', '.join(TABLES)}.")
    if _is_among(out, given):
        raise ValueError(f"{out} is one of the files to be read; name another one for the table.")
    check_folder(out)
    return why_unwritable(out)


def check_output(out: Path | None, given: Iterable[str]) -> None:
    """Raise ValueError or OSError for a file that is an input, or that cannot be written."""
    if out is None:
        return
    if _is_among(out, given):
        raise ValueError(f"{out} is one of the files to be read; name another one for what is written.")
    check_folder(out)
    if why := why_unwritable(out):
        raise OSError(f"{out} cannot be written: {why}.")


def check_picture(plot: Path | None) -> None:
    """Raise ValueError or OSError for a picture that matplotlib has no format for, or that cannot be written."""
    if plot is None:
        return
    if plot.suffix.lower() not in PICTURES:
        raise ValueError(f"{plot} has an unknown ending; pictures are written as {', '.join(PICTURES)}.")
    check_folder(plot)
    if why := why_unwritable(plot):
        raise OSError(f"{plot} cannot be written: {why}.")


def _is_among(out: Path, given: Iterable[str]) -> bool:
    return any(os.path.isfile(text) and out.exists() and out.samefile(text) for text in given)
