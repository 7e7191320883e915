"""The `andersonn` command: train, evaluate, info."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Interatomic potentials that are one layer at its fixed point.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

INTERRUPTED = 130


def main() -> None:
    """Entry point. With a core taken by another process OpenMP's spinning makes two threads slower than one."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app()


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="YAML or JSON file that describes the run.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint, if there is one.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew and replace the checkpoint.")] = False,
) -> None:
    """Train a potential on labelled frames."""
    with _plain_errors():
        if resume and fresh:
            raise ValueError("--resume and --fresh are both given; say one of the two.")
        import logging

        from tqdm.contrib.logging import logging_redirect_tqdm

        from .config import read_config
        from .training import TrainConfig
        from .training import train as run

        logging.basicConfig(level=logging.INFO, format="%(message)s")
        with logging_redirect_tqdm():
            trainer = run(read_config(TrainConfig, config), resume=resume, fresh=fresh)
    if not trainer.finished:
        typer.echo(f"interrupted at {100.0 * trainer.progress:.1f} %; go on with --resume.", err=True)
        raise typer.Exit(INTERRUPTED)
    typer.echo(f"done: {trainer.position.step} steps, results in {trainer.folder}")


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Name or path of a model.")],
    data: Annotated[list[str], typer.Argument(help="Files or glob patterns with labelled frames.")],
    plot: Annotated[Path | None, typer.Option(help="Write a parity plot to this file.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    energy_key: Annotated[str, typer.Option(help="Name of the energies in the files.")] = "energy",
    forces_key: Annotated[str, typer.Option(help="Name of the forces in the files.")] = "forces",
    stress_key: Annotated[str, typer.Option(help="Name of the stresses in the files.")] = "stress",
) -> None:
    """Errors of a model on labelled frames."""
    with _plain_errors():
        from .backends import resolve_device
        from .models.base import EnergyModel
        from .models.checkpoint import load_model
        from .training import LabelKeys, error_text, evaluate_dataset, parity_plot, read_frames

        potential = load_model(model)
        if not isinstance(potential, EnergyModel):
            raise ValueError(f"{model} is a {type(potential).__name__}; only potentials of atoms are evaluated here.")
        keys = LabelKeys(energy_key, forces_key, stress_key)
        frames = read_frames(data, keys)
        result = evaluate_dataset(potential.to(resolve_device(device)), frames, keys=keys)
        typer.echo(f"{len(frames)} frames\n{error_text(result.errors)}")
        if plot is not None:
            parity_plot(result, plot)


@app.command()
def info(model: Annotated[str, typer.Argument(help="Name or path of a model.")]) -> None:
    """What a model is: elements, cutoff, size, config, card."""
    with _plain_errors():
        import json

        from ase.data import chemical_symbols

        from .config import to_dict
        from .fields import RESULTS
        from .models.base import EnergyModel
        from .models.checkpoint import load_model

        found = load_model(model)
        model_config: Any = found.config
        typer.echo(f"architecture  {type(found).__name__}")
        typer.echo(f"elements      {', '.join(chemical_symbols[z] for z in found.elements) or 'any'}")
        if isinstance(found, EnergyModel):
            typer.echo(f"cutoff        {found.cutoff} Å")
        typer.echo(f"parameters    {sum(p.numel() for p in found.parameters())}")
        typer.echo(f"config        {json.dumps(to_dict(model_config))}")
        typer.echo("results       " + "\n              ".join(f"{entry}: {entry.meaning}" for entry in RESULTS))
        typer.echo(
            "card          " + json.dumps(found.card, indent=2, ensure_ascii=False).replace("\n", "\n              ")
        )


@contextmanager
def _plain_errors() -> Iterator[None]:
    """What the user did wrong as one line instead of a traceback."""
    try:
        yield
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    main()
