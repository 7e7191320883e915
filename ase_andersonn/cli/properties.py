"""Commands for properties: singlepoint, relax, eos, elastic, phonons, qha, vacancy, neb.

Each reads all structures of the files it is given, computes one workflow's result for each, prints a line for each, and
writes what is asked for. A structure that fails is a line of its own; the exit status is 1 if all fail.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import plain_errors

Files = Annotated[list[str], typer.Argument(help="Structure files, folders or glob patterns.")]
Model = Annotated[str | None, typer.Option(help="Name or path of a model; the default one if not given.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Out = Annotated[Path | None, typer.Option(help="Write all results to this JSON file.")]
Plot = Annotated[Path | None, typer.Option(help="Draw each result; of several structures the files are numbered.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a line for each structure.")]
Fmax = Annotated[float, typer.Option(help="Largest force at rest, eV/Å.")]


@dataclass(frozen=True)
class Request:
    """What the user gave besides the workflow's own options."""

    files: Sequence[str]
    model: str | None
    device: str
    out: Path | None
    plot: Path | None
    as_json: bool

    def check(self) -> None:
        """Refuse files that are not there, and outputs that cannot be written, before anything is loaded."""
        from ase_andersonn.inputs.paths import expand
        from ase_andersonn.models.files import model_files
        from ase_andersonn.writing import check_folder, why_unwritable

        from .outputs import check_picture

        expand(self.files)
        if self.model is not None:
            model_files(self.model)
        if self.out is not None:
            if self.out.suffix.lower() != ".json":
                raise ValueError(f"{self.out} has an unknown ending; results are written as .json.")
            check_folder(self.out)
            if why := why_unwritable(self.out):
                raise OSError(f"{self.out} cannot be written: {why}.")
        check_picture(self.plot)

    def calculator(self) -> Any:
        from ase_andersonn.calculator import AndersoNN

        return AndersoNN(self.model, device=self.device)

    def structures(self) -> Iterator[tuple[str, Any]]:
        """Names and structures; an error where one cannot be read."""
        from ase_andersonn.inputs.files import structures_in
        from ase_andersonn.inputs.paths import expand

        for path in expand(self.files):
            yield from structures_in(path)


def run(request: Request, compute: Callable[[Any, Any], Any], line: Callable[[Any], str]) -> None:
    """Compute a result for each structure, and say and write what came out."""
    with plain_errors():
        request.check()
        calc = request.calculator()
        results: list[tuple[str, Any]] = []
        for name, atoms in request.structures():
            found = _result(compute, atoms, calc)
            results.append((name, found))
            _say(request, name, found, line)
        write_results(request, results)
    exit_status(results)


def exit_status(results: list[tuple[str, Any]]) -> None:
    """Exit status 1 where no structure has a result."""
    if all(isinstance(found, Exception) for _, found in results):
        raise typer.Exit(1)


def write_results(request: Request, results: list[tuple[str, Any]]) -> None:
    """Write pictures and the file of results, as far as they are asked for."""
    good = [(name, found) for name, found in results if not isinstance(found, Exception)]
    records = [_record(name, found) for name, found in results]
    if request.as_json:
        typer.echo(json.dumps(records, indent=1))
    if request.out is not None:
        from ase_andersonn.writing import write_whole

        write_whole(request.out, (json.dumps(records, indent=1) + "\n").encode())
    if request.plot is not None:
        for k, (_, found) in enumerate(good):
            numbered = request.plot.with_stem(f"{request.plot.stem}-{k}") if len(good) > 1 else request.plot
            found.plot(numbered)


def _result(compute: Callable[[Any, Any], Any], atoms: Any, calc: Any) -> Any:
    if isinstance(atoms, Exception):
        return atoms
    try:
        return compute(atoms, calc)
    except (ValueError, TypeError, RuntimeError, OSError) as error:  # a bad structure is one bad line
        return error


def _say(request: Request, name: str, found: Any, line: Callable[[Any], str]) -> None:
    if isinstance(found, Exception):
        typer.echo(f"failed: {name}: {found}", err=True)
    elif not request.as_json:
        typer.echo(f"{name}: {line(found)}")


def _record(name: str, found: Any) -> dict[str, Any]:
    return {"name": name} | ({"error": str(found)} if isinstance(found, Exception) else found.to_dict())


def singlepoint(
    files: Files, model: Model = None, device: Device = "auto", out: Out = None, as_json: AsJson = False
) -> None:
    """Energy, forces and stress as they are. Example: andersonn singlepoint crystals/*.cif --out energies.json"""
    from ase_andersonn.workflows.singlepoint import singlepoint as workflow

    request = Request(files, model, device, out, None, as_json)
    run(
        request,
        workflow,
        lambda r: f"{r.energy:.6f} eV, {r.energy_per_atom:.6f} eV/atom, largest force {r.fmax:.4g} eV/Å",
    )


def relax(
    files: Files,
    model: Model = None,
    device: Device = "auto",
    fmax: Fmax = 0.01,
    steps: Annotated[int, typer.Option(help="Steps of the optimizer at most.")] = 500,
    cell: Annotated[str, typer.Option(help="auto, fixed, free, constant_volume or hydrostatic.")] = "auto",
    pressure: Annotated[float, typer.Option(help="External pressure, GPa.")] = 0.0,
    fix_symmetry: Annotated[bool, typer.Option("--fix-symmetry", help="Keep the space group.")] = False,
    structures: Annotated[Path | None, typer.Option(help="Write the relaxed structures, extended XYZ.")] = None,
    out: Out = None,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Relax positions and cells, many structures in a batch. Example: andersonn relax cifs/ --structures relaxed.xyz"""
    from ase import units

    from ase_andersonn.workflows.relax import relax_each

    with plain_errors():
        request = Request(files, model, device, out, plot, as_json)
        request.check()
        if structures is not None:
            from ase_andersonn.writing import check_folder

            check_folder(structures)
        names: list[str] = []

        def given() -> Iterator[Any]:
            for name, atoms in request.structures():
                names.append(name)
                yield atoms

        options = {"fmax": fmax, "steps": steps, "cell": cell, "pressure": pressure * units.GPa}
        found: dict[int, Any] = {}
        for k, result in relax_each(given(), request.calculator(), fix_symmetry=fix_symmetry, **options):
            found[k] = result if result.converged else RuntimeError(str(result.error).removeprefix("ValueError: "))
            _say(request, names[k], found[k], _relaxed_line)
        if structures is not None:
            _write_structures(structures, [found[k].atoms for k in sorted(found) if hasattr(found[k], "atoms")])
        results = [(names[k], found[k]) for k in sorted(found)]
        write_results(request, results)
    exit_status(results)


def _relaxed_line(result: Any) -> str:
    n = len(result.atoms)
    return f"{result.energy / n:.6f} eV/atom, {result.volume / n:.4f} Å³/atom after {result.steps} steps"


def _write_structures(path: Path, structures: Sequence[Any]) -> None:
    import io

    from ase.io import write

    from ase_andersonn.writing import write_whole

    text = io.StringIO()
    write(text, structures, format="extxyz")
    write_whole(path, text.getvalue().encode())


def eos(
    files: Files,
    model: Model = None,
    device: Device = "auto",
    fmax: Fmax = 0.01,
    width: Annotated[float | None, typer.Option(help="Largest change of the volume, 0.1 for ±10 %.")] = None,
    points: Annotated[int, typer.Option(help="Volumes.")] = 11,
    out: Out = None,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Equation of state, Birch–Murnaghan. Example: andersonn eos Si.cif --plot eos.png"""

    def compute(atoms: Any, calc: Any) -> Any:
        from ase_andersonn.workflows.eos import equation_of_state

        return equation_of_state(atoms, calc, width=width, points=points, fmax=fmax)

    run(
        Request(files, model, device, out, plot, as_json),
        compute,
        lambda r: (
            f"V₀ {r.volume / len(r.atoms):.4f} Å³/atom, B₀ {r.bulk_modulus:.2f} GPa, "
            f"B₀′ {r.bulk_modulus_derivative:.2f}" + (f" ({r.warning})" if r.warning else "")
        ),
    )


def elastic(
    files: Files,
    model: Model = None,
    device: Device = "auto",
    strain: Annotated[float, typer.Option(help="Largest strain.")] = 0.005,
    out: Out = None,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Elastic constants and moduli. Example: andersonn elastic Cu.cif"""

    def compute(atoms: Any, calc: Any) -> Any:
        from ase_andersonn.workflows.elastic import elastic_constants

        return elastic_constants(atoms, calc, strain=strain)

    def line(r: Any) -> str:
        rows = "\n".join("  " + " ".join(f"{value:8.2f}" for value in row) for row in r.tensor)
        return f"B {r.bulk_modulus:.2f}, G {r.shear_modulus:.2f} GPa, {'stable' if r.stable else 'unstable'}\n{rows}"

    run(Request(files, model, device, out, plot, as_json), compute, line)


def phonons(
    files: Files,
    model: Model = None,
    device: Device = "auto",
    min_length: Annotated[float, typer.Option(help="Å that the supercell measures at least.")] = 12.0,
    displacement: Annotated[float, typer.Option(help="Å.")] = 0.01,
    out: Out = None,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Phonon bands, density of states, thermal properties. Example: andersonn phonons Si.cif --plot bands.png"""

    def compute(atoms: Any, calc: Any) -> Any:
        from ase_andersonn.workflows.phonons import phonons as workflow

        return workflow(atoms, calc, min_length=min_length, displacement=displacement)

    def line(r: Any) -> str:
        highest = max(float(f.max()) for f in r.bands.frequencies)
        lowest = min(float(f.min()) for f in r.bands.frequencies)
        return f"frequencies {lowest:.3f} to {highest:.3f} THz from {r.n_displacements} displacements"

    run(Request(files, model, device, out, plot, as_json), compute, line)


def qha(
    files: Files,
    model: Model = None,
    device: Device = "auto",
    max_temperature: Annotated[float, typer.Option(help="K.")] = 1000.0,
    pressure: Annotated[float, typer.Option(help="GPa.")] = 0.0,
    out: Out = None,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Thermal expansion and heat capacity, quasi-harmonic. Example: andersonn qha Cu.cif --max-temperature 800"""

    def compute(atoms: Any, calc: Any) -> Any:
        from ase import units

        from ase_andersonn.workflows.quasi_harmonic import quasi_harmonic

        return quasi_harmonic(atoms, calc, max_temperature=max_temperature, pressure=pressure * units.GPa)

    def line(r: Any) -> str:
        k = int(abs(r.temperatures - 300.0).argmin())
        return (
            f"at {r.temperatures[k]:.0f} K volume {r.volumes[k] / len(r.atoms):.4f} Å³/atom, expansion "
            f"{1e6 * r.thermal_expansion[k]:.2f}·10⁻⁶/K, C_p {r.heat_capacity[k] / len(r.atoms):.2f} J/(K mol) an atom"
        )

    run(Request(files, model, device, out, plot, as_json), compute, line)


def vacancy(
    files: Files,
    model: Model = None,
    device: Device = "auto",
    fmax: Fmax = 0.01,
    min_length: Annotated[float, typer.Option(help="Å that the supercell measures at least.")] = 10.0,
    out: Out = None,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Formation energies of vacancies. Example: andersonn vacancy Cu.cif"""

    def compute(atoms: Any, calc: Any) -> Any:
        from ase_andersonn.workflows.vacancies import vacancy_formation

        return vacancy_formation(atoms, calc, min_length=min_length, fmax=fmax)

    def line(r: Any) -> str:
        return ", ".join(f"{v.symbol} {v.formation_energy:.3f} eV" for v in r.vacancies)

    run(Request(files, model, device, out, plot, as_json), compute, line)


def neb(
    initial: Annotated[str, typer.Argument(help="Structure file of the initial state.")],
    final: Annotated[str, typer.Argument(help="Structure file of the final state.")],
    model: Model = None,
    device: Device = "auto",
    images: Annotated[int, typer.Option(help="Images between the ends.")] = 5,
    fmax: Fmax = 0.05,
    climb: Annotated[bool, typer.Option(help="Whether the highest image climbs to the saddle.")] = True,
    out: Out = None,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Barrier between two structures (nudged elastic band). Example: andersonn neb a.xyz b.xyz --plot path.png"""
    with plain_errors():
        request = Request([initial, final], model, device, out, plot, as_json)
        request.check()
        from ase_andersonn.workflows.neb import nudged_elastic_band

        found = nudged_elastic_band(
            Path(initial), Path(final), request.calculator(), images=images, fmax=fmax, climb=climb
        )
        name = f"{initial} → {final}"
        _say(request, name, found, lambda r: f"barrier {r.barrier:.4f} eV, reaction energy {r.reaction_energy:.4f} eV")
        write_results(request, [(name, found)])


COMMANDS = (singlepoint, relax, eos, elastic, phonons, qha, vacancy, neb)
