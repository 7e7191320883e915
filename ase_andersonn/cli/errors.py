"""Errors of the command line: one line and an exit status."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from ase_andersonn.workflows.reason import reason

FAILED = 1
INTERRUPTED = 130
STATUS = (
    "Exit status: 0; 1 after an error, be it of a file or of an option's value, or where any structure failed; "
    "2 for wrong usage: an option or argument that is missing, unknown or no number where one is due; "
    "130 if interrupted."
)


@contextmanager
def plain_errors() -> Iterator[None]:
    """What went wrong as one line instead of a traceback."""
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except BrokenPipeError:  # as by `| head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        typer.echo("interrupted.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        if is_usage(error):
            raise
        typer.echo(f"error: {reason(error)}", err=True)
        raise typer.Exit(FAILED) from error


def is_usage(error: Exception) -> bool:
    """Whether typer has a message of its own for it, with the command's usage."""
    return hasattr(error, "exit_code") and hasattr(error, "format_message")
