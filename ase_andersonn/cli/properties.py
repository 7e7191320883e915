"""Commands for properties: singlepoint, relax, eos, elastic, phonons, qha, vacancy, neb.

Each computes one workflow's result for every structure of the files it is given, as `request` describes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import FAILED, plain_errors
from .request import Request, exit_status, run, say, write_results

Files = Annotated[list[str], typer.Argument(help="Structure files, folders or glob patterns.")]
Model = Annotated[str | None, typer.Option(help="Name or path of a model; the default one if not given.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Out = Annotated[Path | None, typer.Option(help="Write all results to this JSON file.")]
Plot = Annotated[Path | None, typer.Option(help="Draw each result; of several structures the files are numbered.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a line for each structure.")]
Fmax = Annotated[float, typer.Option(help="Convergence threshold for the forces, eV/Å.")]
Relax = Annotated[bool, typer.Option("--relax/--no-relax", help="Whether positions and cell are relaxed first.")]
MinLength = Annotated[float, typer.Option(help="Å that the supercell measures at least.")]
Pressure = Annotated[float, typer.Option(help="External pressure, GPa.")]


def singlepoint(
    files: Files, model: Model = None, device: Device = "auto", out: Out = None, as_json: AsJson = False
) -> None:
    """Energy, forces and stress of structures as they are.

    Example: andersonn singlepoint crystals/*.cif --out energies.json
    """
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
    pressure: Pressure = 0.0,
    fix_symmetry: Annotated[bool, typer.Option("--fix-symmetry", help="Keep the space group.")] = False,
    structures: Annotated[Path | None, typer.Option(help="Write the relaxed structures, extended XYZ.")] = None,
    out: Out = None,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Relax positions and cells, many structures in a batch.

    The relaxed structures hold the name of their file in `atoms.info["name"]`.

    Example: andersonn relax cifs/ --structures relaxed.xyz
    """
    from ase import units

    from ase_andersonn.workflows.relax import relax_each

    with plain_errors():
        request = Request(files, model, device, out, plot, as_json, structures)
        request.check(fmax=fmax)
        names: list[str] = []

        def given() -> Iterator[Any]:
            for name, atoms in request.given():
                names.append(name)
                if not isinstance(atoms, Exception):
                    atoms.info.setdefault("name", name)  # for warnings, and in the relaxed structures
                yield atoms

        options = {"fmax": fmax, "steps": steps, "cell": cell, "pressure": pressure * units.GPa}
        found: dict[int, Any] = {}
        try:
            for k, result in relax_each(given(), request.calculator(), fix_symmetry=fix_symmetry, **options):
                found[k] = result
                say(request, names[k], result, _relaxed_line)
        finally:
            results = [(names[k], found[k]) for k in sorted(found)]
            write_results(request, results)
    exit_status(results)


def _relaxed_line(result: Any) -> str:
    n = len(result.atoms)
    volume = ""
    if result.atoms.pbc.all():
        volume = f", {result.volume / n:.4f} Å³/atom ({result.volume / result.initial_volume - 1:+.1%})"
    return f"{result.energy / n:.6f} eV/atom{volume} after {result.steps} steps"


def eos(
    files: Files,
    model: Model = None,
    device: Device = "auto",
    fmax: Fmax = 0.01,
    width: Annotated[float | None, typer.Option(help="Largest change of the volume, 0.1 for ±10 %.")] = None,
    points: Annotated[int, typer.Option(help="Volumes.")] = 11,
    relax: Annotated[bool, typer.Option("--relax/--no-relax", help="Whether atoms relax at each volume.")] = True,
    relax_shape: Annotated[bool, typer.Option("--relax-shape", help="Relax the cell's shape there, too.")] = False,
    out: Out = None,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Equation of state, Birch–Murnaghan; the atoms relax at each volume, the cell keeps its shape.

    Example: andersonn eos Si.cif --plot eos.png
    """

    def compute(atoms: Any, calc: Any) -> Any:
        from ase_andersonn.workflows.eos import equation_of_state

        return equation_of_state(
            atoms, calc, width=width, points=points, relax_positions=relax, relax_shape=relax_shape, fmax=fmax
        )

    run(
        Request(files, model, device, out, plot, as_json),
        compute,
        lambda r: (
            f"V₀ {r.volume / len(r.atoms):.4f} Å³/atom, B₀ {r.bulk_modulus:.2f} GPa, "
            f"B₀′ {r.bulk_modulus_derivative:.1f} ± {r.bulk_modulus_derivative_error:.1f}"
        ),
        fmax=fmax,
        width=width,
    )


def elastic(
    files: Files,
    model: Model = None,
    device: Device = "auto",
    strain: Annotated[float, typer.Option(help="Largest strain.")] = 0.005,
    relax: Relax = True,
    fmax: Fmax = 0.001,
    out: Out = None,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Elastic constants and moduli; positions and cell are relaxed first, the atoms in each strained cell.

    The tensor is printed in the standard axes of the crystal (IEEE 176-1987), which are named; JSON has it in those of
    the file, too (tensor_in_own_axes).

    Example: andersonn elastic Cu.cif --json
    """

    def compute(atoms: Any, calc: Any) -> Any:
        from ase_andersonn.workflows.elastic import elastic_constants

        return elastic_constants(atoms, calc, strain=strain, relax_cell=relax, fmax=fmax)

    def line(r: Any) -> str:
        rows = "\n".join("  " + " ".join(f"{value:8.2f}" for value in row) for row in r.tensor)
        moduli = f"B {r.bulk_modulus:.2f}, G {r.shear_modulus:.2f} GPa, {'stable' if r.stable else 'unstable'}"
        return f"{moduli}; C, GPa (xx yy zz yz xz xy; {r.axes}):\n{rows}"

    run(Request(files, model, device, out, plot, as_json), compute, line, strain=strain, fmax=fmax)


def phonons(
    files: Files,
    model: Model = None,
    device: Device = "auto",
    min_length: MinLength = 12.0,
    displacement: Annotated[float, typer.Option(help="Å.")] = 0.01,
    relax: Relax = True,
    born: Annotated[Path | None, typer.Option(help="phonopy's file BORN, for LO-TO splitting.")] = None,
    fmax: Fmax = 0.001,
    out: Out = None,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Phonon bands, density of states, thermal properties; positions and cell are relaxed first.

    Of ionic crystals LO and TO modes split at Γ with Born charges and dielectric constant only (--born).

    Example: andersonn phonons Si.cif --plot bands.png
    """

    def compute(atoms: Any, calc: Any) -> Any:
        from ase_andersonn.workflows.phonons import phonons as workflow

        return workflow(
            atoms, calc, min_length=min_length, displacement=displacement, relax_cell=relax, fmax=fmax, born=born
        )

    def line(r: Any) -> str:
        highest = max(float(f.max()) for f in r.bands.frequencies)
        lowest = min(float(f.min()) for f in r.bands.frequencies)
        return f"frequencies {lowest:.3f} to {highest:.3f} THz from {r.n_displacements} displacements"

    request = Request(files, model, device, out, plot, as_json)
    run(request, compute, line, min_length=min_length, displacement=displacement, fmax=fmax)


def qha(
    files: Files,
    model: Model = None,
    device: Device = "auto",
    max_temperature: Annotated[float, typer.Option(help="K.")] = 1000.0,
    pressure: Pressure = 0.0,
    out: Out = None,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Thermal expansion and heat capacity, quasi-harmonic; positions and cell are always relaxed first.

    Example: andersonn qha Cu.cif --max-temperature 800
    """

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

    run(Request(files, model, device, out, plot, as_json), compute, line, max_temperature=max_temperature)


def vacancy(
    files: Files,
    model: Model = None,
    device: Device = "auto",
    fmax: Fmax = 0.01,
    min_length: MinLength = 10.0,
    relax: Relax = True,
    out: Out = None,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Formation energies of vacancies of an element; positions and cell are relaxed first.

    Example: andersonn vacancy Cu.cif --min-length 12
    """

    def compute(atoms: Any, calc: Any) -> Any:
        from ase_andersonn.workflows.vacancies import vacancy_formation

        return vacancy_formation(atoms, calc, min_length=min_length, relax_cell=relax, fmax=fmax)

    def line(r: Any) -> str:
        return ", ".join(f"{v.symbol} {v.formation_energy:.3f} eV" for v in r.vacancies)

    run(Request(files, model, device, out, plot, as_json), compute, line, min_length=min_length, fmax=fmax)


def neb(
    initial: Annotated[str, typer.Argument(help="Structure file of the initial state.")],
    final: Annotated[str, typer.Argument(help="Structure file of the final state.")],
    model: Model = None,
    device: Device = "auto",
    images: Annotated[int, typer.Option(help="Images between the ends.")] = 5,
    fmax: Fmax = 0.05,
    climb: Annotated[bool, typer.Option(help="Whether the highest image climbs to the saddle.")] = True,
    relax: Annotated[bool, typer.Option("--relax/--no-relax", help="Whether the ends are relaxed first.")] = True,
    out: Out = None,
    plot: Plot = None,
    as_json: AsJson = False,
) -> None:
    """Barrier between two structures (nudged elastic band); both are relaxed first, in their cell.

    Example: andersonn neb a.xyz b.xyz --plot path.png
    """
    with plain_errors():
        request = Request([initial, final], model, device, out, plot, as_json)
        request.check(images=images, fmax=fmax)
        from ase_andersonn.workflows.neb import nudged_elastic_band

        first, last = _end(initial), _end(final)
        found = nudged_elastic_band(
            first, last, request.calculator(), images=images, fmax=fmax, climb=climb, relax_ends=relax
        )
        name = f"{initial} → {final}"
        say(request, name, found, _barrier_line)
        write_results(request, [(name, found)])
    if not found.converged:
        raise typer.Exit(FAILED)


def _end(path: str) -> Any:
    """One end of a band; of what is wrong with it the file is named."""
    from ase_andersonn.workflows._evaluate import read_structure

    try:
        return read_structure(Path(path))
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith(path) else f"{path}: {error}") from error


def _barrier_line(result: Any) -> str:
    text = f"barrier {result.barrier:.4f} eV, reaction energy {result.reaction_energy:.4f} eV"
    return text if result.converged else f"{text}, not converged, fmax {result.fmax:.4g} eV/Å"


COMMANDS = (singlepoint, relax, eos, elastic, phonons, qha, vacancy, neb)
