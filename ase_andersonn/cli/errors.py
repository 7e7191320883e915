"""Errors of the command line: one line and an exit status."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer

INTERRUPTED = 130


@contextmanager
def plain_errors() -> Iterator[None]:
    """What the user did wrong as one line instead of a traceback."""
    try:
        yield
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        typer.echo("interrupted.", err=True)
        raise typer.Exit(INTERRUPTED) from None
