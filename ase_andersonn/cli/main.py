"""The `andersonn` command and its commands around models: train, evaluate, models, info, classify."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from .command import new_app
from .dynamics import COMMANDS as DYNAMICS
from .errors import FAILED, INTERRUPTED, plain_errors
from .optimizing import COMMANDS as OPTIMIZING
from .outputs import print_json
from .properties import COMMANDS, AsJson
from .screening import COMMANDS as SCREENING

app = new_app()

ConfigFile = Annotated[Path, typer.Argument(help="YAML or JSON file that describes the run.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint, if there is one.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start anew and replace the checkpoint.")]


for _command in (*COMMANDS, *DYNAMICS, *SCREENING, *OPTIMIZING):
    app.command()(_command)


def main() -> None:
    """Entry point."""
    import sys
    import warnings

    for stream in (sys.stdout, sys.stderr):  # file names hold what the terminal's encoding may not
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    app()


@app.command()
def train(
    config: ConfigFile,
    resume: Resume = False,
    fresh: Fresh = False,
    seeds: Annotated[int, typer.Option(min=1, help="Train a committee of so many members.")] = 1,
) -> None:
    """Train a potential on labelled frames. Example: andersonn train config.yaml --resume"""
    with plain_errors():
        from ase_andersonn.config import read_config
        from ase_andersonn.training.config import TrainConfig

        _check_resume(resume, fresh)
        run_config = read_config(TrainConfig, config)
        _check_files(run_config.output, run_config.train, run_config.validation)

        from ase_andersonn.training import train as run
        from ase_andersonn.training import train_committee

        with _logged():
            if seeds == 1:
                runs = [run(run_config, resume=resume, fresh=fresh)]
            else:
                runs = train_committee(run_config, seeds, resume=resume, fresh=fresh)
    for trainer in runs:
        _say_how_it_ended(trainer)
    if seeds > 1:
        typer.echo(f"the committee is in {Path(run_config.output) / 'ensemble'}")


@app.command()
def train_classifier(
    config: ConfigFile,
    resume: Resume = False,
    fresh: Fresh = False,
    seeds: Annotated[int, typer.Option(min=1, help="Train an ensemble of so many members.")] = 1,
) -> None:
    """Train a classifier on a table of structures and labels. Example: andersonn train-classifier config.yaml"""
    with plain_errors():
        from ase_andersonn.config import read_config
        from ase_andersonn.training.classification.config import ClassifierTrainConfig

        _check_resume(resume, fresh)
        run_config = read_config(ClassifierTrainConfig, config)
        _check_files(run_config.output, run_config.train, run_config.validation, run_config.test.values())

        from ase_andersonn.training.classification import train_classifier as run
        from ase_andersonn.training.classification.trainer import train_ensemble

        with _logged():
            if seeds == 1:
                runs = [run(run_config, resume=resume, fresh=fresh)]
            else:
                runs = train_ensemble(run_config, seeds, resume=resume, fresh=fresh)
    for trainer in runs:
        _say_how_it_ended(trainer)


@app.command()
def classify(
    files: Annotated[list[str], typer.Argument(help="Structure files, folders, glob patterns, or SMILES.")],
    labels: Annotated[str | None, typer.Option(help="electronic, polarity, pore-size or pore-size-3.")] = None,
    model: Annotated[str | None, typer.Option(help="Name or path of a classifier, or of a folder of them.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write a table: .csv, .json or .db (ASE database).")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw a picture of the answers.")] = None,
    confidence: Annotated[float, typer.Option(help="Answers below this probability are 'uncertain'.")] = 0.0,
    batch_size: Annotated[int, typer.Option(help="Structures evaluated at once; 0 goes by their size.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Label structures: metal or not; polarity; pore size. Example: andersonn classify cifs/ --out labels.csv"""
    with plain_errors():
        from ase_andersonn.labels import label_set
        from ase_andersonn.pretrained.catalog import CLASSIFIERS, model_files
        from ase_andersonn.structures.paths import check_sources

        from .outputs import check_picture, check_table

        unwritable = check_table(out, files)
        check_picture(plot)
        check_sources(files)
        if labels is not None:
            label_set(labels)
        if model is not None:
            model_files(model, CLASSIFIERS)
        if unwritable:
            typer.echo(f"warning: {out} cannot be written: {unwritable}. The table will be kept elsewhere.", err=True)

        from ase_andersonn.classifier import StructureClassifier

        from .label_picture import write_picture
        from .label_table import failures, named_structures, rows, summary, write_or_keep
        from .request import named_warnings

        classifier = StructureClassifier(model, device=device, labels=labels, confidence=confidence)
        names: list[str] = []
        given = named_structures(files, names, out=out)
        with named_warnings():
            answers = classifier.predict_many(given, batch_size=batch_size or "auto")
        if not answers:
            raise ValueError(f"there is no structure in {', '.join(files)}.")
        lost = ""
        if out is not None:
            lost = write_or_keep(out, names, answers, lambda: named_structures(files, [], out=out))
        bad = failures(names, answers)
        if as_json:
            print_json(rows(names, answers))
        elif len(bad) < len(answers):
            typer.echo(summary(answers, classifier.labels))
        for name, error in bad:
            typer.echo(f"failed: {error}" if str(error).startswith(name) else f"failed: {name}: {error}", err=True)
        if plot is not None and len(bad) < len(answers):
            write_picture(plot, names, answers, classifier.labels, confidence)
        if lost:
            raise OSError(lost)
    if bad:
        raise typer.Exit(FAILED)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Name or path of a model, or of a folder of them, a committee.")],
    data: Annotated[list[str], typer.Argument(help="Files or glob patterns with labelled frames.")],
    plot: Annotated[Path | None, typer.Option(help="Write a parity plot to this file.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    energy_key: Annotated[str, typer.Option(help="Name of the energies in the files.")] = "energy",
    forces_key: Annotated[str, typer.Option(help="Name of the forces in the files.")] = "forces",
    stress_key: Annotated[str, typer.Option(help="Name of the stresses in the files.")] = "stress",
    as_json: AsJson = False,
) -> None:
    """Errors of a model on labelled frames. Example: andersonn evaluate universal test.xyz --plot parity.png"""
    with plain_errors():
        from ase_andersonn.pretrained.catalog import model_files
        from ase_andersonn.structures.paths import expand

        from .outputs import check_picture

        check_picture(plot)
        model_files(model)
        expand(data)

        from ase_andersonn.backends import resolve_device
        from ase_andersonn.checkpoints.checkpoint import load_model
        from ase_andersonn.potentials.base import EnergyModel
        from ase_andersonn.potentials.committee import Committee
        from ase_andersonn.properties import LABELS
        from ase_andersonn.training import evaluate_dataset, read_frames
        from ase_andersonn.training.config import LabelKeys
        from ase_andersonn.training.data.labels import check_names
        from ase_andersonn.training.report import error_text, largest_text, parity_plot, spread_text

        potential = load_model(model)
        if not isinstance(potential, (EnergyModel, Committee)):
            raise ValueError(f"{model} is a {type(potential).__name__}; only potentials of atoms are evaluated here.")
        keys = LabelKeys(energy_key, forces_key, stress_key)
        frames = read_frames(data, keys)
        check_names(frames, keys)
        result = evaluate_dataset(potential.to(resolve_device(device)), frames, keys=keys)
        if as_json:
            units = {label.name: label.unit for label in LABELS}
            print_json({"frames": len(frames), "units": units, "errors": result.errors, "spread": result.spread})
        else:
            typer.echo(f"{len(frames)} frames\n{error_text(result.errors)}\n{largest_text(result)}".rstrip())
            if result.spread is not None:
                typer.echo(spread_text(result.spread))
        if plot is not None:
            parity_plot(result, plot)


@app.command()
def models(as_json: AsJson = False) -> None:
    """The packaged models: elements, level of theory, errors. Example: andersonn models --json"""
    from .model_cards import model_table, packaged

    print_json(packaged()) if as_json else typer.echo(model_table(packaged()))


@app.command()
def info(
    model: Annotated[str, typer.Argument(help="Name or path of a model, or a classifier's name.")],
    as_json: AsJson = False,
) -> None:
    """What a model is: elements or labels, size, limits, config, card. Example: andersonn info universal"""
    from .model_cards import model_facts, model_text

    print_json(model_facts(model)) if as_json else typer.echo(model_text(model_facts(model)))


def _check_resume(resume: bool, fresh: bool) -> None:
    if resume and fresh:
        raise ValueError("--resume and --fresh are both given; say one of the two.")


def _check_files(output: str, *patterns: Iterable[str]) -> None:
    """Refuse files of a run that are not there, and an output that cannot be written, before anything is loaded."""
    from ase_andersonn.atomic_write import check_new_folder
    from ase_andersonn.structures.paths import expand

    for files in patterns:
        expand(files)
    check_new_folder(Path(output))


@contextmanager
def _logged() -> Iterator[None]:
    """The log of a training run on the terminal, above its progress bar."""
    import logging

    from tqdm.contrib.logging import logging_redirect_tqdm

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with logging_redirect_tqdm():
        yield


def _say_how_it_ended(trainer: Any) -> None:
    if not trainer.finished:
        typer.echo(f"interrupted at {100.0 * trainer.progress:.1f} %; go on with --resume.", err=True)
        raise typer.Exit(INTERRUPTED)
    typer.echo(f"done: {trainer.position.step} steps, results in {trainer.folder}")
