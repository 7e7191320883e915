"""Commands for simulations and surfaces: md, mc, surface."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import INTERRUPTED, plain_errors
from .properties import AsJson, Device, Files, Fmax, Model, Out, Plot
from .request import Request, named_warnings, run, say, write_results

File = Annotated[str, typer.Argument(help="Structure file.")]
Temp = Annotated[float | None, typer.Option(help="Temperature, K.")]
Pressure = Annotated[float | None, typer.Option(help="External pressure, GPa.")]
Seed = Annotated[int | None, typer.Option(help="Of the random numbers, to repeat a run.")]
Prefix = Annotated[Path | None, typer.Option(help="Write PREFIX.traj, PREFIX.log, and PREFIX.npz to resume from.")]
Every = Annotated[int, typer.Option("--traj-every", help="Steps between two frames, and two lines of the log.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from PREFIX.npz, if it is there.")]


def md(
    file: File,
    model: Model = None,
    device: Device = "auto",
    ensemble: Annotated[str, typer.Option(help="nve, langevin or bussi (constant volume), npt.")] = "nve",
    steps: Annotated[int, typer.Option(help="Steps in all, also of a run that goes on.")] = 1000,
    timestep: Annotated[float, typer.Option(help="fs.")] = 1.0,
    temp: Temp = None,
    pressure: Pressure = None,
    friction: Annotated[float, typer.Option(help="1/fs, of langevin and npt.")] = 0.01,
    thermostat_time: Annotated[float, typer.Option(help="fs, of bussi.")] = 100.0,
    barostat_time: Annotated[float, typer.Option(help="fs, of npt.")] = 1000.0,
    equil_steps: Annotated[int, typer.Option(help="Steps left out of the averages.")] = 0,
    seed: Seed = None,
    file_prefix: Prefix = None,
    every: Every = 10,
    resume: Resume = False,
    max_temperature: Annotated[float | None, typer.Option(help="K at which the run has exploded.")] = None,
    max_extrapolation: Annotated[float | None, typer.Option(help="Stop where the model extrapolates further.")] = None,
    max_spread: Annotated[float | None, typer.Option(help="Stop at a committee's spread of forces, eV/Å.")] = None,
    out: Out = None,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Molecular dynamics. Example: andersonn md Si.cif --ensemble langevin --temp 600 --steps 5000 --file-prefix run"""
    with plain_errors():
        from ase import units

        from ase_andersonn.workflows.md import molecular_dynamics

        request = Request([file], model, device, out, plot, as_json)
        files = _files(request, file_prefix, resume)
        known: Any = ensemble  # the workflow refuses others
        compute = partial(
            molecular_dynamics, Path(file), request.calculator(), ensemble=known, temperature=temp,
            pressure=(pressure or 0.0) * units.GPa,
            steps=steps, timestep=timestep, friction=friction, thermostat_time=thermostat_time,
            barostat_time=barostat_time, equilibration=equil_steps, seed=seed, every=every, resume=resume,
            max_temperature=max_temperature, max_extrapolation=max_extrapolation, max_spread=max_spread,
            progress=True, **files,
        )  # fmt: skip
    _answer(request, file, _md_line, compute)


def _md_line(r: Any) -> str:
    n = len(r.atoms)
    parts = [f"{with_error(r.temperature, 0)} K", f"{with_error(r.total_energy, 6, n)} eV/atom in total"]
    parts.append(f"{with_error(r.potential_energy, 6, n)} potential")
    if r.volume is not None:
        parts.append(f"{with_error(r.volume, 3, n)} Å³/atom")
    drift = f"; drift {r.drift:+.2e} eV/atom/ps" if r.drift == r.drift else ""
    text = f"means of {r.temperature.n} rows: {', '.join(parts)}{drift}; "
    return f"{text}last {r.temperatures[-1]:.0f} K, {r.total_energies[-1] / n:.6f} eV/atom after {r.steps} steps"


def with_error(value: Any, digits: int, n: int = 1) -> str:
    """A mean of n atoms as that of one, with its standard error where that is known."""
    mean = f"{value.mean / n:.{digits}f}"
    return f"{mean} ± {value.error / n:.{digits}f}" if value.error == value.error else f"{mean} (no error known)"


def mc(
    file: File,
    temp: Annotated[float, typer.Option(help="Temperature, K.")],
    model: Model = None,
    device: Device = "auto",
    sweeps: Annotated[int, typer.Option(help="Sweeps in all, each of as many moves as there are atoms.")] = 100,
    moves: Annotated[str, typer.Option(help="Some of displacement, swap, volume, cell, with commas.")] = "displacement",
    pressure: Pressure = None,
    equil_sweeps: Annotated[int | None, typer.Option(help="Sweeps left out of the averages; a fifth of all.")] = None,
    seed: Seed = None,
    file_prefix: Prefix = None,
    every: Every = 10,
    resume: Resume = False,
    out: Out = None,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Metropolis Monte Carlo. Example: andersonn mc CuAu.cif --temp 800 --moves displacement,swap --sweeps 200"""
    with plain_errors():
        from ase import units

        from ase_andersonn.workflows.monte_carlo import monte_carlo

        request = Request([file], model, device, out, plot, as_json)
        files = _files(request, file_prefix, resume)
        compute = partial(
            monte_carlo, Path(file), request.calculator(), temperature=temp, sweeps=sweeps,
            moves=moves.split(","),
            pressure=None if pressure is None else pressure * units.GPa, equilibration=equil_sweeps, seed=seed,
            every=every, resume=resume, progress=True, **files,
        )  # fmt: skip
    _answer(request, file, _mc_line, compute)


def _mc_line(r: Any) -> str:
    n = len(r.atoms)
    accepted = ", ".join(f"{name} {share:.0%}" for name, share in r.acceptance.items())
    if not r.energy.n:
        return f"no averages, for all {r.sweeps} sweeps are equilibration"
    text = f"mean of {r.energy.n} sweeps {with_error(r.energy, 6, n)} eV/atom; accepted: {accepted}"
    return text if r.volume is None else f"{text}; {with_error(r.volume, 3, n)} Å³/atom"


def surface(
    files: Files,
    miller: Annotated[str, typer.Option(help="Indices of the normal in the conventional cell, with commas.")],
    model: Model = None,
    device: Device = "auto",
    fmax: Fmax = 0.01,
    min_thickness: Annotated[float, typer.Option(help="Å of the thinnest slab.")] = 8.0,
    thicknesses: Annotated[int, typer.Option(help="Slabs a termination.")] = 4,
    vacuum: Annotated[float, typer.Option(help="Å between slabs.")] = 12.0,
    out: Out = None,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Surface energies of all terminations, polar ones named. Example: andersonn surface Cu.cif --miller 1,1,0"""

    def compute(atoms: Any, calc: Any) -> Any:
        from ase_andersonn.workflows.surface import surface_energy

        return surface_energy(
            atoms, calc, indices, min_thickness=min_thickness, thicknesses=thicknesses, vacuum=vacuum, fmax=fmax
        )

    def line(r: Any) -> str:
        cuts = [f"{cut.energy_joule:.3f} J/m² ({cut.energy:.4f} eV/Å²)" for cut in r.terminations]
        polar = [f"{cut}, polar" if each.polar else cut for cut, each in zip(cuts, r.terminations, strict=True)]
        warnings = dict.fromkeys(f" ({cut.warning})" for cut in r.terminations if cut.warning)
        return f"{miller}: {', '.join(polar)}{''.join(warnings)}"

    with plain_errors():
        try:
            indices = [int(text) for text in miller.split(",")]
        except ValueError:
            raise ValueError(f"--miller is {miller!r}; three whole numbers are expected, such as 1,1,0.") from None
    run(Request(files, model, device, out, plot, as_json), compute, line)


def _files(request: Request, prefix: Path | None, resume: bool) -> dict[str, Any]:
    """The files of a simulation, none of which may be an input, before anything is loaded."""
    from .outputs import check_output

    request.check()
    if len(paths := request.paths()) != 1 or str(paths[0]) != request.files[0]:
        raise ValueError(f"{request.files[0]} is no single structure file; a simulation is of one.")
    if prefix is None:
        if resume:
            raise ValueError("--resume needs the --file-prefix of the run that it is to go on with.")
        return {}
    endings = {"trajectory": ".traj", "log": ".log", "restart": ".npz"}
    found = {name: prefix.with_name(prefix.name + ending) for name, ending in endings.items()}
    for path in found.values():
        check_output(path, request.files)
    if found["restart"].exists() and not resume:
        raise ValueError(f"{found['restart']} is there already; --resume goes on with its run. Else remove it first.")
    return found


def _answer(request: Request, name: str, line: Callable[[Any], str], compute: Callable[[], Any]) -> None:
    """Say and write a result; exit status 130 where a signal ended the run, 1 where it stopped by itself."""
    status = 0
    with plain_errors():
        from ase_andersonn.workflows._signals import Interrupted

        try:
            with named_warnings(name):
                found = compute()
            status = 1 if found.stopped_because else 0
        except Interrupted as interruption:
            found, status = interruption.result, INTERRUPTED
        say(request, name, found, line)
        write_results(request, [(name, found)])
    if status:
        word = "interrupted" if status == INTERRUPTED else "stopped"
        typer.echo(f"{word} {found.stopped_because}.", err=True)
        raise typer.Exit(status)


COMMANDS = (md, mc, surface)
