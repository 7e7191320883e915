"""Thermal expansion and heat capacity in the quasi-harmonic approximation.

    G(T, p) = min_V [E(V) + F_vib(V, T) + pV]

with phonons at several volumes, whose supercells are evaluated in one batch; the minimum over volumes and its
derivatives are phonopy's, A. Togo and I. Tanaka, Scripta Materialia 108, 1 (2015).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms, units
from numpy.typing import ArrayLike, NDArray

from ._evaluate import check_calculator, check_count, check_finite, check_positive, read_structure
from ._results import Result
from .eos import scaled
from .phonons import IMAGINARY, force_constants, thermal_properties, warn_of_imaginary_modes
from .relax import at_rest
from .supercells import supercell_matrix

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
STEP = 10.0
"""K between temperatures."""
RANGE = (0.96, 1.10)
"""Volumes over the relaxed one: crystals expand by some 6 % before they melt, and the fit needs more."""


@dataclass(frozen=True, repr=False)
class QuasiHarmonic(Result):
    """A crystal at finite temperature and the pressure given; extensive quantities are those of `atoms`.

    Attributes:
        atoms: the relaxed crystal, without vibrations.
        pressure: eV/Å³.
        temperatures: K.
        volumes: Å³, at each temperature.
        thermal_expansion: of the volume, 1/K; a third of it along each axis of a cubic crystal.
        heat_capacity: at constant pressure, J/(K mol).
        bulk_modulus: isothermal, GPa.
        gibbs_energy: eV.
        gruneisen: thermodynamic Grüneisen parameter; nan at 0 K.
        volumes_evaluated: Å³.
        energies: eV, without vibrations, of these volumes.
        lowest_frequencies: THz, on the mesh, of these volumes.
        stable: whether none is below −0.05 THz.
    """

    atoms: Atoms
    pressure: float
    temperatures: Floats
    volumes: Floats
    thermal_expansion: Floats
    heat_capacity: Floats
    bulk_modulus: Floats
    gibbs_energy: Floats
    gruneisen: Floats
    volumes_evaluated: Floats
    energies: Floats
    lowest_frequencies: Floats
    stable: bool

    def _draw(self, figure: "Figure") -> None:
        figure.set_size_inches(9.0, 6.4)
        quantities = (
            (self.volumes / len(self.atoms), "volume, Å³/atom"),
            (self.thermal_expansion * 1e6, "volumetric expansion, 10⁻⁶/K"),
            (self.heat_capacity / len(self.atoms), "heat capacity C_p, J/(K mol atoms)"),
            (self.bulk_modulus, "bulk modulus, GPa"),
        )
        for axes, (values, label) in zip(figure.subplots(2, 2).flat, quantities, strict=True):
            axes.plot(self.temperatures, values)
            axes.set(xlabel="temperature, K", ylabel=label)


def quasi_harmonic(
    structure: Any,
    calc: Any,
    *,
    max_temperature: float = 1000.0,
    pressure: float = 0.0,
    volumes: tuple[float, float] = RANGE,
    points: int = 11,
    supercell: ArrayLike | None = None,
    min_length: float = 12.0,
    displacement: float = 0.01,
    fmax: float = 1e-3,
    mesh: float = 60.0,
    classical: bool = False,
) -> QuasiHarmonic:
    """A crystal from 0 K to `max_temperature`, without change of the cell's shape.

    Args:
        structure: a crystal: ASE, pymatgen, phonopy, or a path; it is relaxed first, positions and cell.
        calc: any ASE calculator; with `AndersoNN`, `dtype="float64", tol=1e-9, warm_start=False` is advised.
        max_temperature: K.
        pressure: eV/Å³ as everywhere in ASE; `5 * ase.units.GPa` is 5 GPa.
        volumes: smallest and largest volume over the relaxed one.
        points: volumes, 5 or more.
        supercell: see `phonons`.
        min_length: Å, see `phonons`.
        displacement: Å.
        fmax: eV/Å of the relaxations.
        mesh: Å, see `phonons`.
        classical: whether the nuclei are classical particles, as in molecular dynamics, and not quantum ones; then
            nothing at 0 K has a meaning.

    Warns:
        of imaginary modes at some volume, which thermal properties leave out, and of volumes too few for the expansion.

    Raises:
        ValueError: for arguments without a meaning, and where the free energy has no minimum between the volumes.
        RuntimeError: where a relaxation does not converge.
    """
    check_calculator(calc)
    check_count(5, points=points)
    check_positive(
        max_temperature=max_temperature, min_length=min_length, displacement=displacement, fmax=fmax, mesh=mesh
    )
    check_finite(pressure=pressure)
    low, high = volumes
    if not 0.5 <= low < high <= 2.0:
        raise ValueError(f"volumes is {volumes!r}; give a rising pair from 0.5 to 2.")
    crystal = read_structure(structure, periodic=True)
    matrix = supercell_matrix(crystal, supercell, min_length)
    (crystal,) = at_rest([crystal], calc, cell="free", pressure=pressure, fmax=fmax)
    sizes = crystal.cell.volume * np.linspace(low, high, points)
    frames = at_rest([scaled(crystal, volume) for volume in sizes], calc, cell="fixed", fmax=fmax)
    energies = np.array([atoms.get_potential_energy() for atoms in frames])
    temperatures = np.arange(0.0, max_temperature + 2.5 * STEP, STEP)  # derivatives need two beyond the last
    thermal, lowest = [], []
    for found, _ in force_constants(frames, calc, matrix, displacement):
        found.run_mesh(mesh)
        lowest.append(float(found.mesh.frequencies.min()))  # type: ignore[union-attr]
        cells = len(crystal) / len(found.primitive)
        thermal.append([cells * values for values in thermal_properties(found, temperatures, classical=classical)])
    if soft := sum(frequency < -IMAGINARY for frequency in lowest):
        warn_of_imaginary_modes(crystal, f"at {soft} of {points} volumes, down to {min(lowest):.2f} THz")
    return _described(crystal, pressure, temperatures, sizes, energies, np.array(thermal).T, np.array(lowest))


def _described(
    crystal: Atoms,
    pressure: float,
    temperatures: Floats,
    sizes: Floats,
    energies: Floats,
    thermal: Floats,
    lowest: Floats,
) -> QuasiHarmonic:
    """The result; `thermal` [n_temperatures, 3, n_volumes] is what `thermal_properties` returns for each volume."""
    from phonopy.qha.core import QHA

    free_energy, entropy, heat_capacity = thermal.swapaxes(0, 1)
    total = energies + free_energy * units.kJ / units.mol + pressure * sizes
    beyond = temperatures[np.isin(total.argmin(1), (0, len(sizes) - 1))]
    if len(beyond):
        raise ValueError(
            f"the free energy at {beyond[0]:.0f} K is lowest at an end of the volumes from {sizes[0]:.4g} to "
            f"{sizes[-1]:.4g} Å³; give wider `volumes` or a lower max_temperature."
        )
    found = QHA(
        volumes=sizes,
        electronic_energies=energies,
        temperatures=temperatures,
        fe_phonon=free_energy,
        cv=heat_capacity,
        entropy=entropy,
        pressure=pressure / units.GPa if pressure else None,
        eos="vinet",
    )
    found.run()
    n = len(temperatures) - 2
    quantities = (
        found.volume_temperature,
        found.thermal_expansion,
        found.heat_capacity_P_polyfit,
        found.bulk_modulus_temperature,
        found.gibbs_temperature,
        found.gruneisen_temperature,
    )
    volumes, expansion, heat, modulus, gibbs, gruneisen = (np.array(values, dtype=float)[:n] for values in quantities)
    gruneisen[temperatures[:n] == 0] = np.nan
    return QuasiHarmonic(
        atoms=crystal,
        pressure=float(pressure),
        temperatures=temperatures[:n],
        volumes=volumes,
        thermal_expansion=expansion,
        heat_capacity=heat,
        bulk_modulus=modulus,
        gibbs_energy=gibbs,
        gruneisen=gruneisen,
        volumes_evaluated=sizes,
        energies=energies,
        lowest_frequencies=lowest,
        stable=bool(lowest.min() >= -IMAGINARY),
    )
