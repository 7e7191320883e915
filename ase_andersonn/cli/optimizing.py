"""The command that chooses the fastest way to run a model on this machine."""

from typing import Annotated, Any

import typer

from .outputs import print_json
from .properties import AsJson, Device

COLUMNS = (
    "candidate",
    "block",
    "µs/atom, {} atoms",
    "µs/atom, {} atoms",
    "build, s",
    "|ΔE|, eV/atom",
    "|ΔF|, eV/Å",
    "|Δσ|, eV/Å³",
    "verdict",
)
FIELDS = ("small_us", "large_us", "build_s", "energy_error", "forces_error", "stress_error")
FORMATS = ("{:.1f}", "{:.1f}", "{:.1f}", "{:.1e}", "{:.1e}", "{:.1e}")


def optimize(
    model: Annotated[str, typer.Argument(help="Name or path of a model, or of a folder of them, a committee.")],
    device: Device = "auto",
    inductor: Annotated[bool, typer.Option("--inductor", help="Try PyTorch's compiler too: minutes.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure and choose the fastest way to run a model on this machine.

    PyTorch's operations, kernels in C++ (which are built), and block sizes are compared on 8 and 1728 atoms, within
    half a minute. Results have to equal those of PyTorch's operations. The choice is kept in the user's cache for this
    model, machine and version, and all calculators use it from then on.

    Example: andersonn optimize universal
    """
    from ase_andersonn.pretrained.catalog import model_files

    model_files(model)

    from ase_andersonn.backends import resolve_device
    from ase_andersonn.checkpoints.checkpoint import load_model
    from ase_andersonn.engine.optimize.choose import optimize as choose
    from ase_andersonn.evaluators import members_with_candidates

    where = resolve_device(device)
    choices = []
    for member in members_with_candidates(load_model(model)):
        choice, why = choose(member, where, inductor=inductor)
        choices.append(choice)
        if not as_json:
            typer.echo(_table(choice))
        if why:
            typer.echo(f"warning: the choice cannot be kept, and is lost with this process: {why}", err=True)
    if as_json:
        print_json({"model": model, "device": str(where), "choices": [_facts(choice) for choice in choices]})


def _facts(choice: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return {"chosen": asdict(choice.chosen), **asdict(choice)}


def _table(choice: Any) -> str:
    """Columns of equal width."""
    header = [column.format(n) for column, n in zip(COLUMNS, (0, 0, *choice.n_atoms, 0, 0, 0, 0, 0), strict=True)]
    rows = [header, *([c.name, str(c.block), *_numbers(c), c.verdict] for c in choice.candidates)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _numbers(candidate: Any) -> list[str]:
    values = [getattr(candidate, field) for field in FIELDS]
    return ["-" if value is None else form.format(value) for form, value in zip(FORMATS, values, strict=True)]


COMMANDS = (optimize,)
