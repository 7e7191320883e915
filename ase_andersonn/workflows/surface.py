"""Surface energies: slabs of several thicknesses, and a straight line through their energies.

    E(N) = 2 γ A + N e,

N the atoms of a slab, A the area of one of its two faces, e the energy of an atom in the bulk. γ and e are fitted
together, since an e from elsewhere, however little it is off, makes γ grow with the thickness: Fiorentini and
Methfessel, J. Phys.: Condens. Matter 8, 6525 (1996).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from ._evaluate import check_calculator, check_count, check_positive, evaluate_all, read_structure
from ._results import Result
from .relax import at_rest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
JOULE = units.m**2 / units.J
"""J/m² of 1 eV/Å²."""
BULK_CHANGE = 2e-3
"""eV/atom by which the line's e may differ from the crystal's."""


@dataclass(frozen=True)
class Termination:
    """One way to cut the crystal.

    Attributes:
        shift: where it is cut, a fraction of the repeat along the normal.
        energy: γ, eV/Å²; the mean of both faces where they differ.
        energy_joule: J/m².
        error: eV/Å², standard error of the line; nan for two thicknesses.
        unrelaxed: γ before the atoms move, eV/Å².
        symmetric: whether both faces are the same by symmetry.
        n_atoms: of the slabs.
        areas: Å², of a face of each.
        energies: eV, of each at rest.
        bulk_energy: e of the line, eV/atom.
        polar: whether the slabs have a dipole moment across them by guessed oxidation states (Tasker's type III): not
            stable as it is cut, and of an energy that diverges with the thickness where charges interact.
        warning: in words that it is polar, or why the line does not hold; or None.
        atoms: the thickest slab, at rest.
    """

    shift: float
    energy: float
    energy_joule: float
    error: float
    unrelaxed: float
    symmetric: bool
    n_atoms: tuple[int, ...]
    areas: tuple[float, ...]
    energies: tuple[float, ...]
    bulk_energy: float
    polar: bool
    warning: str | None
    atoms: Atoms


@dataclass(frozen=True, repr=False)
class SurfaceEnergy(Result):
    """Energies of a crystal's surfaces with one normal.

    Attributes:
        atoms: the crystal, in its conventional cell.
        miller: indices h, k, l of the normal in that cell.
        bulk_energy: eV/atom, of the crystal itself.
        terminations: by energy, the lowest first.
    """

    atoms: Atoms
    miller: tuple[int, int, int]
    bulk_energy: float
    terminations: tuple[Termination, ...]

    @property
    def energy(self) -> float:
        """Of the lowest termination, eV/Å²."""
        return self.terminations[0].energy

    def _draw(self, figure: "Figure") -> None:
        axes = figure.subplots()
        for cut in self.terminations:
            n, area = np.array(cut.n_atoms), np.array(cut.areas)
            excess = (np.array(cut.energies) - n * cut.bulk_energy) / (2 * area) * JOULE
            axes.plot(n, excess, "o", label=f"cut at {cut.shift:.2f}: {cut.energy_joule:.3f} J/m²")
            axes.axhline(cut.energy_joule, lw=0.8, color=axes.lines[-1].get_color())
        axes.set(xlabel="atoms of the slab", ylabel="surface energy, J/m²", title=f"{self.miller}")
        axes.legend()


def surface_energy(
    structure: Any,
    calc: Any,
    miller: Sequence[int],
    *,
    min_thickness: float = 8.0,
    thicknesses: int = 4,
    vacuum: float = 12.0,
    relax_bulk: bool = True,
    relax_slabs: bool = True,
    fmax: float = 0.01,
) -> SurfaceEnergy:
    """Energies of all terminations of a crystal that keep its composition.

    Args:
        structure: ASE, pymatgen, phonopy, or a path.
        calc: any ASE calculator; all slabs come to rest in one batch where it has them.
        miller: h, k, l in the conventional cell.
        min_thickness: Å of the thinnest slab.
        thicknesses: slabs a termination, two or more; each is one repeat thicker than the one before.
        vacuum: Å between slabs.
        relax_bulk: whether the crystal comes to rest first, positions and cell.
        relax_slabs: whether the slabs do, at the crystal's cell.
        fmax: eV/Å of the relaxations.

    Raises:
        ValueError: for arguments without a meaning, and for structures that are no crystals.
        RuntimeError: where atoms do not come to rest.
    """
    check_calculator(calc)
    check_positive(min_thickness=min_thickness, vacuum=vacuum, fmax=fmax)
    check_count(2, thicknesses=thicknesses)
    indices = _miller(miller)
    crystal = read_structure(structure, periodic=True)
    if relax_bulk:
        (crystal,) = at_rest([crystal], calc, cell="free", fmax=fmax)
    slabs, crystal = _slabs(crystal, indices, min_thickness, thicknesses, vacuum)
    frames = [frame for *_, group in slabs for frame in group]
    first, *flat = (float(found["energy"]) for found in evaluate_all([crystal, *frames], calc, forces=False))
    energies, rested = flat, frames
    if relax_slabs:
        rested = at_rest(frames, calc, cell="fixed", fmax=fmax)
        energies = [float(frame.get_potential_energy()) for frame in rested]
    bulk = first / len(crystal)
    found = []
    for k, (shift, symmetric, polar, group) in enumerate(slabs):
        own = slice(k * thicknesses, (k + 1) * thicknesses)
        found.append(_fitted(shift, symmetric, polar, group, rested[own][-1], energies[own], flat[own], bulk))
    ordered = sorted(found, key=lambda cut: cut.energy)
    return SurfaceEnergy(crystal, indices, bulk, tuple(ordered))


def _miller(miller: Any) -> tuple[int, int, int]:
    found = tuple(miller) if isinstance(miller, Sequence | np.ndarray) and not isinstance(miller, str) else ()
    if len(found) != 3 or not all(isinstance(h, int | np.integer) for h in found) or not any(found):
        raise ValueError(f"miller is {miller!r}; three whole numbers are expected, not all 0, such as (1, 1, 1).")
    return int(found[0]), int(found[1]), int(found[2])


def _slabs(
    crystal: Atoms, miller: tuple[int, int, int], min_thickness: float, thicknesses: int, vacuum: float
) -> tuple[list[tuple[float, bool, bool, list[Atoms]]], Atoms]:
    """For each termination where it is cut, whether its faces are the same and whether it is polar, and slabs; and the
    conventional cell."""
    from pymatgen.core.surface import SlabGenerator
    from pymatgen.io.ase import AseAtomsAdaptor
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    plain = Atoms(crystal.numbers, crystal.positions, cell=crystal.cell, pbc=True)
    structure = SpacegroupAnalyzer(AseAtomsAdaptor.get_structure(plain)).get_conventional_standard_structure()

    def generator(repeats: int, height: float) -> Any:
        thickness = (repeats - 0.5) * height  # rounded up to whole repeats
        return SlabGenerator(structure, miller, thickness, vacuum, center_slab=True, lll_reduce=True, primitive=True)

    unit = generator(1, 1.0).oriented_unit_cell
    height = unit.volume / float(np.linalg.norm(np.cross(*unit.lattice.matrix[:2])))
    least = max(int(np.ceil(min_thickness / height - 1e-6)), 1)
    makers = [generator(least + k, height) for k in range(thicknesses)]
    formula = structure.composition.reduced_composition
    charges: dict[str, float] = next(iter(formula.oxi_state_guesses()), {}) if len(formula) > 1 else {}
    found = []
    for slab in makers[0].get_slabs():
        group = [maker.get_slab(shift=slab.shift) for maker in makers]
        symmetric, frames = bool(group[-1].is_symmetric()), [read_structure(one) for one in group]
        found.append((float(slab.shift), symmetric, _is_polar(group[-1], charges), frames))
    return found, read_structure(structure)


def _is_polar(slab: Any, charges: Any) -> bool:
    if not any(charges.values()):
        return False
    charged = slab.copy()
    charged.add_oxidation_state_by_element(charges)
    return bool(charged.is_polar())


def _fitted(
    shift: float,
    symmetric: bool,
    polar: bool,
    slabs: Sequence[Atoms],
    thickest: Atoms,
    energies: Sequence[float],
    unrelaxed: Sequence[float],
    bulk: float,
) -> Termination:
    """γ and e from the straight line E / 2A = γ + e N / 2A."""
    n = np.array([len(slab) for slab in slabs])
    areas = np.array([float(np.linalg.norm(np.cross(*slab.cell.array[:2]))) for slab in slabs])
    x = np.stack([np.ones(len(n)), n / (2 * areas)], axis=1)
    y = np.array(energies) / (2 * areas)
    (gamma, own), _, _, _ = np.linalg.lstsq(x, y, rcond=None)
    before = np.linalg.lstsq(x, np.array(unrelaxed) / (2 * areas), rcond=None)[0][0]
    error = float("nan")
    if len(n) > 2:
        variance = float(((y - x @ [gamma, own]) ** 2).sum()) / (len(n) - 2)
        error = float(np.sqrt(variance * np.linalg.inv(x.T @ x)[0, 0]))
    warning = None
    if polar:
        warning = (
            "the surface is polar by the usual oxidation states (Tasker's type III): not stable without "
            "reconstruction or adsorbates, and its energy depends on how it is compensated"
        )
    elif abs(own - bulk) > BULK_CHANGE:
        warning = (
            f"the slabs' energy grows by {own:.4f} eV an atom, and the crystal's is {bulk:.4f}: they are too thin, or "
            "atoms moved far; give a larger min_thickness."
        )
    return Termination(
        shift, float(gamma), float(gamma * JOULE), error, float(before), symmetric, tuple(map(int, n)),
        tuple(map(float, areas)), tuple(map(float, energies)), float(own), polar, warning, thickest,
    )  # fmt: skip
