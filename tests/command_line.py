"""The `andersonn` command in tests, run in this process."""

from typer.testing import CliRunner

from ase_andersonn.cli import app


def invoke(*arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    found = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return found.exit_code, found.stdout, found.stderr


def run(*arguments: object) -> tuple[int, str]:
    """Exit code, and both outputs in the order of printing."""
    found = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return found.exit_code, found.output
