"""Phonons of a crystal: bands, density of states, thermal properties.

    D_ij(q) = (m_i m_j)^(−1/2) Σ_R Φ_ij(R) e^(iq·R),    D e = ω² e,

with force constants Φ from forces at finite displacements, all supercells in one batch. Displacements by symmetry,
force constants, and all that follows are phonopy's, A. Togo et al., J. Phys.: Condens. Matter 35, 353001 (2023); the
path through the Brillouin zone is seekpath's, Y. Hinuma et al., Comp. Mat. Sci. 128, 140 (2017).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike, NDArray

from ._evaluate import check_calculator, check_count, check_positive, evaluate_all, read_structure
from ._results import Result
from .born_charges import add_charges, checked_charges, is_ionic, read_born
from .relax import at_rest
from .supercells import supercell_matrix

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from phonopy import Phonopy

Floats = NDArray[np.float64]
IMAGINARY = 0.05
"""THz; a frequency further below zero is imaginary, a smaller one round-off of the acoustic branches at Γ."""
CUTOFF = 0.01
"""THz below which a mode is an acoustic one at Γ, and left out of thermal properties."""
MESH = 100.0
"""Å; phonopy's default density of the mesh in the Brillouin zone."""


@dataclass(frozen=True)
class Bands:
    """Frequencies along the segments of a path; imaginary ones are negative.

    Attributes:
        labels: names of both ends of each segment.
        qpoints: [n_points, 3] of each segment, in reciprocal vectors of the primitive cell.
        distances: [n_points] of each segment along the path, 1/Å without 2π.
        frequencies: [n_points, n_bands] of each segment, THz.
        group_velocities: [n_points, n_bands, 3] of each segment, THz Å (100 m/s), Cartesian.
    """

    labels: tuple[tuple[str, str], ...]
    qpoints: tuple[Floats, ...]
    distances: tuple[Floats, ...]
    frequencies: tuple[Floats, ...]
    group_velocities: tuple[Floats, ...]


@dataclass(frozen=True, repr=False)
class Phonons(Result):
    """Phonons of a crystal. Extensive quantities are those of one primitive cell, in phonopy's units.

    Attributes:
        atoms: the crystal.
        supercell: matrix [3, 3] whose rows are the supercell's vectors in those of `atoms`.
        n_displacements: supercells evaluated.
        n_primitive: atoms of the primitive cell.
        bands: along seekpath's path.
        dos_frequencies: THz.
        dos: states per THz.
        temperatures: K.
        free_energy: of the vibrations (Helmholtz), kJ/mol.
        entropy: J/(K mol).
        heat_capacity: at constant volume, J/(K mol).
        lowest_frequency: of mesh and path, THz.
        lowest_qpoint: where that is, in reciprocal vectors of the primitive cell.
        imaginary_share: of the modes on the mesh; thermal properties leave them out.
        stable: whether no frequency is below −0.05 THz.
        residual_force: the largest force in the crystal without displacements, eV/Å, which was subtracted.
        phonopy: the phonopy object, for all else it can do.
    """

    atoms: Atoms
    supercell: NDArray[np.int64]
    n_displacements: int
    n_primitive: int
    bands: Bands
    dos_frequencies: Floats
    dos: Floats
    temperatures: Floats
    free_energy: Floats
    entropy: Floats
    heat_capacity: Floats
    lowest_frequency: float
    lowest_qpoint: tuple[float, float, float]
    imaginary_share: float
    stable: bool
    residual_force: float
    phonopy: "Phonopy" = field(compare=False)

    def to_dict(self) -> dict[str, Any]:
        """See `Result.to_dict`; without the phonopy object."""
        return {name: value for name, value in super().to_dict().items() if name != "phonopy"}

    def _draw(self, figure: "Figure") -> None:
        figure.set_size_inches(8.0, 4.4)
        left, right = figure.subplots(1, 2, width_ratios=(3, 1), sharey=True)
        ticks: dict[float, str] = {}
        for ends, x, y in zip(self.bands.labels, self.bands.distances, self.bands.frequencies, strict=True):
            left.plot(x, y, color="tab:blue", linewidth=1.0)
            for place, name in zip(x[[0, -1]], ends, strict=True):
                before = ticks.get(round(float(place), 6), name)
                ticks[round(float(place), 6)] = name if before == name else f"{before}|{name}"
        for place in ticks:
            left.axvline(place, color="black", linewidth=0.5)
        left.axhline(0.0, color="black", linewidth=0.5)
        left.set_xticks(list(ticks), list(ticks.values()))
        left.set(ylabel="frequency, THz", xlim=(min(ticks), max(ticks)))
        right.plot(self.dos, self.dos_frequencies)
        right.set(xlabel="states/THz", xlim=(0.0, None))


def phonons(
    structure: Any,
    calc: Any,
    *,
    supercell: ArrayLike | None = None,
    min_length: float = 12.0,
    displacement: float = 0.01,
    relax_cell: bool = True,
    fmax: float = 1e-3,
    temperatures: Sequence[float] | None = None,
    mesh: float = MESH,
    points: int = 51,
    born: ArrayLike | str | Path | None = None,
    dielectric: ArrayLike | None = None,
) -> Phonons:
    """Phonons of a crystal.

    Args:
        structure: ASE, pymatgen, phonopy, or a path; the primitive cell is found by phonopy.
        calc: any ASE calculator; with `AndersoNN`, `dtype="float64", tol=1e-9, warm_start=False` is advised.
        supercell: three repeats or a matrix [3, 3]; None for repeats that make it `min_length` Å across.
        min_length: Å, the least distance of a supercell's opposite faces.
        displacement: Å.
        relax_cell: whether the crystal is relaxed first, positions and cell.
        fmax: eV/Å of this relaxation.
        temperatures: K; None for 0, 10, …, 1000.
        mesh: Å, density of the mesh for density of states and thermal properties.
        points: on the longest segment of the path.
        born: Born effective charges [n_atoms, 3, 3] of the atoms of `structure`, e. With `dielectric`, the
            non-analytical correction at Γ is made (Gonze and Lee). Or the path of a file BORN of phonopy, which holds
            both, for the primitive cell and units of VASP.
        dielectric: high-frequency dielectric tensor [3, 3].

    Warns:
        of imaginary modes, and of ionic crystals without charges, whose splitting of LO and TO modes is missing.

    Raises:
        ValueError: for arguments without a meaning.
        RuntimeError: where the relaxation does not converge.
    """
    kelvin = np.arange(0.0, 1001.0, 10.0) if temperatures is None else checked_temperatures(temperatures)
    check_calculator(calc)
    check_positive(min_length=min_length, displacement=displacement, fmax=fmax, mesh=mesh)
    check_count(2, points=points)
    crystal = read_structure(structure, periodic=True)
    path = Path(born) if isinstance(born, str | Path) else None
    charges = None
    if path is None:
        charges = checked_charges(born, dielectric, len(crystal))  # type: ignore[arg-type]
    elif dielectric is not None or not path.is_file():
        raise ValueError(
            f"born is {str(path)!r}; it has to be a file BORN of phonopy, which holds the dielectric tensor, too."
        )
    matrix = supercell_matrix(crystal, supercell, min_length)
    if relax_cell:
        (crystal,) = at_rest([crystal], calc, cell="free", fmax=fmax)
    ((found, residual),) = force_constants([crystal], calc, matrix, displacement)
    if path is not None:
        read_born(found, path)
    elif charges is not None:
        add_charges(found, *charges)
    elif is_ionic(crystal):
        warnings.warn(
            f"{crystal.get_chemical_formula()} is ionic: if it is an insulator, its LO and TO modes "
            "split at Γ, which is missing without Born charges and the dielectric tensor (born and dielectric; "
            "--born FILE).",
            stacklevel=2,
        )
    result = _described(crystal, found, residual, kelvin, mesh, points)
    if not result.stable:
        where = f"down to {result.lowest_frequency:.2f} THz at q = {np.round(result.lowest_qpoint, 3).tolist()}"
        warn_of_imaginary_modes(crystal, where)
    return result


def warn_of_imaginary_modes(crystal: Atoms, where: str) -> None:
    """The warning of a workflow, at the line that called it."""
    warnings.warn(
        f"{crystal.get_chemical_formula()} has imaginary modes {where}; thermal properties leave them out.",
        stacklevel=3,
    )


def checked_temperatures(temperatures: Sequence[float]) -> Floats:
    """Temperatures, K, as an array; ValueError for negative ones and none."""
    kelvin = np.asarray(temperatures, dtype=float)
    if kelvin.ndim != 1 or not len(kelvin) or not np.isfinite(kelvin).all() or kelvin.min() < 0:
        raise ValueError(f"temperatures is {temperatures!r}; give a list of numbers of K, 0 or more.")
    return kelvin


def force_constants(
    crystals: Sequence[Atoms], calc: Any, matrix: NDArray[np.int64], displacement: float
) -> list[tuple["Phonopy", float]]:
    """Phonopy objects with force constants, and the largest force without displacements, of each crystal.

    The supercells of all crystals are evaluated together.
    """
    from phonopy import Phonopy

    found, frames = [], []
    for crystal in crystals:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that "auto" means something else than in phonopy 3
            one = Phonopy(to_phonopy(crystal), supercell_matrix=matrix, primitive_matrix="auto")
        one.generate_displacements(distance=displacement)
        found.append(one)
        frames += [from_phonopy(cell) for cell in (one.supercell, *(one.supercells_with_displacements or ()))]
    forces = iter([np.asarray(results["forces"], dtype=float) for results in evaluate_all(frames, calc)])
    answers = []
    for one in found:
        rest = next(forces)
        one.forces = np.array([next(forces) - rest for _ in one.supercells_with_displacements or ()])
        one.produce_force_constants(show_drift=False)
        one.symmetrize_force_constants(show_drift=False)
        answers.append((one, float(np.linalg.norm(rest, axis=1).max())))
    return answers


def to_phonopy(atoms: Atoms) -> Any:
    """The structure as PhonopyAtoms."""
    from phonopy.structure.atoms import PhonopyAtoms

    return PhonopyAtoms(
        numbers=atoms.numbers,
        cell=atoms.cell.array,
        scaled_positions=atoms.get_scaled_positions(),
        masses=atoms.get_masses(),
    )


def from_phonopy(cell: Any) -> Atoms:
    """PhonopyAtoms as ase.Atoms."""
    return Atoms(cell.numbers, scaled_positions=cell.scaled_positions, cell=cell.cell, pbc=True, masses=cell.masses)


def _described(
    crystal: Atoms, found: "Phonopy", residual: float, temperatures: Floats, mesh: float, points: int
) -> Phonons:
    bands = _bands(found, points)
    found.run_mesh(mesh)
    grid: Any = found.mesh
    found.run_total_dos()
    density: Any = found.total_dos
    thermal = thermal_properties(found, temperatures)
    qpoints = np.concatenate([grid.qpoints, *bands.qpoints])
    frequencies = np.concatenate([grid.frequencies, *bands.frequencies])
    q, _ = np.unravel_index(int(frequencies.argmin()), frequencies.shape)
    x, y, z = (float(component) for component in qpoints[q])
    imaginary = (grid.frequencies < -IMAGINARY).sum(1) @ grid.weights
    lowest = float(frequencies.min())
    return Phonons(
        atoms=crystal,
        supercell=np.array(found.supercell_matrix).T,
        n_displacements=len(found.supercells_with_displacements or ()),
        n_primitive=len(found.primitive),
        bands=bands,
        dos_frequencies=np.array(density.frequency_points),
        dos=np.array(density.dos),
        temperatures=temperatures,
        free_energy=thermal[0],
        entropy=thermal[1],
        heat_capacity=thermal[2],
        lowest_frequency=lowest,
        lowest_qpoint=(x, y, z),
        imaginary_share=float(imaginary / (grid.weights.sum() * grid.frequencies.shape[1])),
        stable=lowest >= -IMAGINARY,
        residual_force=residual,
        phonopy=found,
    )


def thermal_properties(
    found: "Phonopy", temperatures: Floats, *, classical: bool = False
) -> tuple[Floats, Floats, Floats]:
    """Free energy (kJ/mol), entropy and heat capacity (J/(K mol)) of the modes of a mesh that was run."""
    found.run_thermal_properties(temperatures=temperatures, cutoff_frequency=CUTOFF, classical=classical)
    run: Any = found.thermal_properties
    _, free_energy, entropy, heat_capacity = run.thermal_properties
    return np.array(free_energy), np.array(entropy), np.array(heat_capacity)


def _bands(found: "Phonopy", points: int) -> Bands:
    import seekpath

    primitive = found.primitive
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # edge cases of the lattice, where one of several valid paths is taken
        path = seekpath.get_path_orig_cell((primitive.cell, primitive.scaled_positions, primitive.numbers))
    points_of = path["point_coords"]
    ends = [(np.array(points_of[start]), np.array(points_of[end])) for start, end in path["path"]]
    reciprocal = np.linalg.inv(primitive.cell).T
    lengths = [float(np.linalg.norm((end - start) @ reciprocal)) for start, end in ends]
    counts = [max(2, round(points * length / max(lengths))) for length in lengths]
    segments = [np.linspace(start, end, n) for (start, end), n in zip(ends, counts, strict=True)]
    found.run_band_structure(segments, with_group_velocities=True)
    run: Any = found.band_structure
    velocities = [np.array(v) for v in run.group_velocities]
    labels = tuple((_label(a), _label(b)) for a, b in path["path"])
    frequencies, distances = ([np.array(x) for x in values] for values in (run.frequencies, run.distances))
    return Bands(labels, tuple(segments), tuple(distances), tuple(frequencies), tuple(velocities))


def _label(name: str) -> str:
    return name.replace("GAMMA", "Γ").replace("DELTA", "Δ").replace("LAMBDA", "Λ").replace("SIGMA", "Σ")
