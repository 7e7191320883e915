"""Formation energies of vacancies.

    E_f = E(N − 1) − E(N) + μ,

at constant volume, of every site that symmetry tells apart, all relaxed in one batch. μ is the energy of an atom in its
reservoir; in an element it is E(N)/N.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from numpy.typing import ArrayLike, NDArray

from ._evaluate import check_calculator, check_positive, evaluate_all, read_structure
from ._results import Result
from .relax import at_rest
from .supercells import supercell_matrix

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SYMPREC = 1e-3
"""Å within which sites are the same by symmetry."""


@dataclass(frozen=True)
class Vacancy:
    """A site without its atom.

    Attributes:
        symbol: of the atom taken out.
        site: its index in the crystal's cell.
        multiplicity: equal sites in that cell.
        chemical_potential: μ, eV.
        formation_energy: E_f, eV.
        unrelaxed: E_f before the atoms around move, eV.
        atoms: the relaxed supercell with the vacancy.
    """

    symbol: str
    site: int
    multiplicity: int
    chemical_potential: float
    formation_energy: float
    unrelaxed: float
    atoms: Atoms


@dataclass(frozen=True, repr=False)
class VacancyFormation(Result):
    """Vacancies of a crystal.

    Attributes:
        atoms: the crystal.
        supercell: matrix [3, 3] whose rows are the supercell's vectors in those of `atoms`.
        vacancies: one for each kind of site.
    """

    atoms: Atoms
    supercell: NDArray[np.int64]
    vacancies: tuple[Vacancy, ...]

    def _draw(self, figure: "Figure") -> None:
        axes = figure.subplots()
        names = [f"{vacancy.symbol}, site {vacancy.site}" for vacancy in self.vacancies]
        axes.bar(names, [vacancy.unrelaxed for vacancy in self.vacancies], color="0.8", label="unrelaxed")
        bars = axes.bar(names, [vacancy.formation_energy for vacancy in self.vacancies], width=0.5, label="relaxed")
        axes.bar_label(bars, fmt="%.2f")
        axes.set(ylabel="formation energy, eV")
        axes.legend()


def vacancy_formation(
    structure: Any,
    calc: Any,
    *,
    chemical_potentials: Mapping[str, float] | None = None,
    supercell: ArrayLike | None = None,
    min_length: float = 10.0,
    relax_cell: bool = True,
    fmax: float = 0.01,
) -> VacancyFormation:
    """Formation energies of vacancies of a crystal.

    Args:
        structure: ASE, pymatgen, phonopy, or a path.
        calc: any ASE calculator.
        chemical_potentials: eV, of every element; None for an element's own energy per atom.
        supercell: three repeats or a matrix [3, 3]; None for repeats that make it `min_length` Å across.
        min_length: Å, the least distance of a supercell's opposite faces.
        relax_cell: whether the crystal is relaxed first, positions and cell.
        fmax: eV/Å of the relaxations.

    Raises:
        ValueError: for arguments without a meaning, and for compounds without chemical potentials.
        RuntimeError: where a relaxation does not converge.
    """
    check_calculator(calc)
    check_positive(min_length=min_length, fmax=fmax)
    crystal = read_structure(structure, periodic=True)
    symbols = set(crystal.get_chemical_symbols())
    potentials = dict(chemical_potentials or {})
    if missing := sorted(symbols - potentials.keys()) if potentials or len(symbols) > 1 else []:
        raise ValueError(
            f"chemical_potentials has no entry for {', '.join(missing)}; a vacancy in {crystal.symbols} needs the "
            "energy, eV, of an atom of each element in its reservoir, such as the element's crystal."
        )
    matrix = supercell_matrix(crystal, supercell, min_length)
    if relax_cell:
        (crystal,) = at_rest([crystal], calc, cell="free", fmax=fmax)
    from ase.build import make_supercell

    perfect = make_supercell(crystal, matrix.T)
    ((site_list, counts), frames) = _distinct_sites(crystal), []
    for site in site_list:
        frame = perfect.copy()
        del frame[int(np.flatnonzero(_origin(crystal, perfect) == site)[0])]
        frames.append(frame)
    whole, *broken = (float(results["energy"]) for results in evaluate_all([perfect, *frames], calc, forces=False))
    if not potentials:
        potentials = {symbol: whole / len(perfect) for symbol in symbols}
    vacancies = []
    for k, rest in enumerate(at_rest(frames, calc, cell="fixed", fmax=fmax)):
        symbol = crystal.symbols[site_list[k]]
        offset = potentials[symbol] - whole
        energy = float(rest.get_potential_energy())
        vacancies.append(
            Vacancy(symbol, site_list[k], counts[k], potentials[symbol], energy + offset, broken[k] + offset, rest)
        )
    return VacancyFormation(crystal, matrix.T, tuple(vacancies))


def _distinct_sites(crystal: Atoms) -> tuple[list[int], list[int]]:
    """One site of each kind, and how many of the kind the cell has."""
    import spglib

    cell = (crystal.cell.array, crystal.get_scaled_positions(), crystal.numbers)
    dataset = spglib.get_symmetry_dataset(cell, symprec=SYMPREC)
    equivalent = np.arange(len(crystal)) if dataset is None else np.asarray(dataset.equivalent_atoms)
    sites, counts = np.unique(equivalent, return_counts=True)
    return [int(site) for site in sites], [int(count) for count in counts]


def _origin(crystal: Atoms, perfect: Atoms) -> NDArray[np.int64]:
    """For each atom of a supercell its index in the cell."""
    cells = len(perfect) // len(crystal)
    assert np.array_equal(np.tile(crystal.numbers, cells), perfect.numbers)  # cell after cell, as make_supercell builds
    return np.tile(np.arange(len(crystal)), cells)
