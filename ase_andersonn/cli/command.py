"""What all commands share: one line for an error, `--quiet`, `--version`, completion."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from functools import wraps
from inspect import Parameter, signature
from typing import Annotated, Any

import typer

from .errors import STATUS, plain_errors

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only; --json and files stay.")]


class App(typer.Typer):
    """The commands: each has `--quiet`, and each error is one line."""

    def command(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        """See `typer.Typer.command`."""
        register = super().command(*args, **kwargs)

        def registered(function: Callable[..., None]) -> Callable[..., None]:
            register(_with_quiet(function))
            return function

        return registered


def _with_quiet(function: Callable[..., None]) -> Callable[..., None]:
    @wraps(function)
    def called(*args: Any, quiet: bool = False, **options: Any) -> None:
        silence = _quiet(keep_stdout=options.get("as_json", False)) if quiet else nullcontext()
        with plain_errors(), silence:
            function(*args, **options)

    own = signature(function)
    more = Parameter("quiet", Parameter.KEYWORD_ONLY, default=False, annotation=Quiet)
    called.__signature__ = own.replace(parameters=[*own.parameters.values(), more])  # type: ignore[attr-defined]
    called.__annotations__ = {**function.__annotations__, "quiet": Quiet}
    return called


def new_app() -> App:
    """The application without its commands."""
    app = App(
        help="Deep-equilibrium interatomic potentials: properties of structures, training, classification.",
        epilog=f"andersonn COMMAND --help has an example. {STATUS}",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def options(version: bool = typer.Option(False, "--version", help="Print the version.", callback=_version)) -> None:
        pass

    return app


def _version(wanted: bool) -> None:
    if wanted:
        from ase_andersonn import __version__

        typer.echo(f"ase-andersonn {__version__}")
        raise typer.Exit


@contextmanager
def _quiet(keep_stdout: bool) -> Iterator[None]:
    """No warnings, no progress, no log; nor, unless it is kept, what goes to stdout."""
    os.environ["TQDM_DISABLE"] = "1"  # read where tqdm is imported, which is later
    logging.disable(logging.WARNING)
    try:
        with open(os.devnull, "w") as nothing, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if keep_stdout:
                yield
            else:
                with redirect_stdout(nothing):
                    yield
    finally:
        logging.disable(logging.NOTSET)
        del os.environ["TQDM_DISABLE"]
