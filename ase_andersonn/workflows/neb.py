"""Minimum-energy paths between two structures: nudged elastic band with a climbing image.

The bands and their spring forces are ASE's; only the images are evaluated together, in one batch a step.
G. Henkelman, B. P. Uberuaga, H. Jónsson, J. Chem. Phys. 113, 9901 (2000).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from ase import Atoms
from ase.mep import NEB
from numpy.typing import NDArray

from ._evaluate import check_calculator, check_count, check_positive, evaluate_all, read_structure, with_results
from ._results import Result
from .relax import at_rest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
SAME = 1e-2
"""Å; ends nearer to each other are one structure."""
CLIMB_FMAX = 5.0
"""The image of highest energy climbs once the band is within this factor of `fmax`."""


@dataclass(frozen=True, repr=False)
class MinimumEnergyPath(Result):
    """A path over a saddle point.

    Attributes:
        images: structures from the initial to the final one, with energies and forces in their calculators.
        coordinates: length of the path up to each image, Å.
        energies: eV.
        barrier: of the highest image above the first, eV.
        reverse_barrier: above the last, eV.
        reaction_energy: of the last image above the first, eV.
        fmax: the largest force of the band, eV/Å.
        steps: of the optimizer.
        converged: whether `fmax` was reached.
    """

    images: tuple[Atoms, ...]
    coordinates: Floats
    energies: Floats
    barrier: float
    reverse_barrier: float
    reaction_energy: float
    fmax: float
    steps: int
    converged: bool

    def _draw(self, figure: "Figure") -> None:
        from ase.utils.forcecurve import fit_images

        fit = fit_images(self.images)
        axes = figure.subplots()
        axes.plot(fit.fit_path, fit.fit_energies, "-")
        axes.plot(fit.path, fit.energies, "o")
        axes.set(xlabel="path, Å", ylabel="energy, eV", title=f"barrier {self.barrier:.3f} eV")


def nudged_elastic_band(
    initial: Any,
    final: Any,
    calc: Any,
    *,
    images: int = 5,
    climb: bool = True,
    fmax: float = 0.05,
    steps: int = 500,
    relax_ends: bool = True,
    interpolation: Literal["linear", "idpp"] = "idpp",
    spring: float = 0.1,
) -> MinimumEnergyPath:
    """The path of lowest energy between two structures with the same atoms in the same order and cell.

    Args:
        initial: ASE, pymatgen, phonopy, or a path.
        final: the same atoms elsewhere.
        calc: any ASE calculator.
        images: between the ends.
        climb: whether the highest image ends on the saddle point.
        fmax: eV/Å at which the band is converged.
        steps: of the optimizer at most; a band that is not converged then is returned with `converged` False.
        relax_ends: whether the ends are relaxed first, in their cell.
        interpolation: of the first path, linear or by ASE's image-dependent pair potential.
        spring: eV/Å².

    Raises:
        ValueError: for arguments without a meaning, and for ends that do not belong together.
        RuntimeError: where the relaxation of an end does not converge.
    """
    check_calculator(calc)
    check_count(1, images=images)
    check_count(0, steps=steps)
    check_positive(fmax=fmax, spring=spring)
    if interpolation not in ("linear", "idpp"):
        raise ValueError(f"interpolation is {interpolation!r}; it is 'linear' or 'idpp'.")
    ends = [read_structure(initial), read_structure(final)]
    _check_ends(*ends)
    if relax_ends:
        ends = at_rest(ends, calc, cell="fixed", fmax=min(fmax, 0.01))
    else:
        ends = [with_results(end, results) for end, results in zip(ends, evaluate_all(ends, calc), strict=True)]
    _check_distance(*ends)
    band = _BatchedBand([ends[0], *(ends[0].copy() for _ in range(images)), ends[1]], calc, spring)
    band.interpolate(method=interpolation, mic=bool(ends[0].pbc.any()))  # type: ignore[no-untyped-call]
    converged, taken = True, 0
    for climbs, limit in ((False, CLIMB_FMAX * fmax), (True, fmax)) if climb else ((False, fmax),):
        converged, more = _optimized(band, climbs, limit, steps - taken)
        taken += more
    return _described(band, taken, converged)


class _BatchedBand(NEB):
    """ASE's band, whose images are evaluated together."""

    def __init__(self, images: list[Atoms], calc: Any, spring: float) -> None:
        super().__init__(images, k=spring, method="improvedtangent")  # type: ignore[no-untyped-call]
        self.shared = calc

    def get_forces(self) -> Floats:
        """Forces on the band, [n_images n_atoms, 3]."""
        inner = self.images[1:-1]
        for image, results in zip(inner, evaluate_all(inner, self.shared), strict=True):
            image.calc = with_results(image, results).calc
        return np.asarray(super().get_forces())  # type: ignore[no-untyped-call]


def _optimized(band: _BatchedBand, climb: bool, fmax: float, steps: int) -> tuple[bool, int]:
    from ase.optimize import FIRE

    band.climb = climb
    with FIRE(band, logfile=None) as search:
        converged = bool(search.run(fmax=fmax, steps=steps))
        return converged, int(search.nsteps)


def _check_ends(initial: Atoms, final: Atoms) -> None:
    if not np.array_equal(initial.numbers, final.numbers):
        raise ValueError(
            f"the ends are {initial.symbols} and {final.symbols}; both need the same atoms in the same order."
        )
    if not np.allclose(initial.cell.array, final.cell.array, atol=1e-6) or (initial.pbc != final.pbc).any():
        raise ValueError("the ends have different cells; a band moves atoms alone, so give both the same cell.")


def _check_distance(initial: Atoms, final: Atoms) -> None:
    if np.abs(_moves(initial, final)).max() < SAME:
        raise ValueError("both ends are the same structure; there is no path between them.")


def _moves(before: Atoms, after: Atoms) -> Floats:
    """Shortest ways of the atoms from one image to another, Å, [n_atoms, 3]."""
    from ase.geometry import find_mic

    return np.asarray(find_mic(after.positions - before.positions, before.cell, before.pbc)[0])


def _described(band: _BatchedBand, steps: int, converged: bool) -> MinimumEnergyPath:
    forces = band.get_forces()
    images = tuple(band.images)
    energies = np.array([image.get_potential_energy() for image in images])
    lengths = [float(np.linalg.norm(_moves(*pair))) for pair in pairwise(images)]
    top = float(energies.max())
    return MinimumEnergyPath(
        images=images,
        coordinates=np.concatenate([[0.0], np.cumsum(lengths)]),
        energies=energies,
        barrier=top - float(energies[0]),
        reverse_barrier=top - float(energies[-1]),
        reaction_energy=float(energies[-1] - energies[0]),
        fmax=float(np.linalg.norm(forces, axis=1).max()),
        steps=steps,
        converged=converged,
    )
