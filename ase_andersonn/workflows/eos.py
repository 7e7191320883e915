"""Equations of state: energy against volume, and the bulk modulus.

Birch and Murnaghan's energy is a cubic polynomial of x = V^(−2/3), so its least-squares fit is linear:

    E(V) = E₀ + (9/2) V₀ B₀ f² [1 + (B₀′ − 4) f],    f = [(V₀/V)^(2/3) − 1] / 2.

F. Birch, Phys. Rev. 71, 809 (1947). One more power of f is the next order of the same expansion. Where it changes B₀,
the range of volumes is too wide for the formula.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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
WIDTHS = (0.10, 0.06, 0.04, 0.025)
"""Half ranges of V/V₀ that are tried, the widest first: the wider, the less does noise matter."""
ORDER_CHANGE = 0.01
"""Relative change of B₀ by one order more up to which the fit holds."""
DERIVATIVES = (2.0, 8.0)
"""B₀′ of crystals; most have 3 to 6."""
DERIVATIVE_CHANGE = 1.0
"""Change of B₀′ with the range of volumes from which on it says more of the range than of the crystal."""
DERIVATIVE_WIDTH = 0.06
"""Least half range that B₀′ is taken from: the energy's third derivative, whose error goes as the range to the −3."""
RESIDUAL = 0.01
"""Of the energies' range; a larger root mean square of the residuals is noise, or kinks of the energy."""
CENTRED = 0.1
"""Of the half range; V₀ further from its middle makes B₀′ another one."""
SHIFTS = 12
"""Times the range may follow the minimum."""


@dataclass(frozen=True, repr=False)
class EquationOfState(Result):
    """Energies at several volumes, and the Birch–Murnaghan fit.

    Attributes:
        atoms: the structure at the volume of lowest energy.
        volumes: Å³, ascending.
        energies: eV.
        volume: V₀, Å³.
        energy: E₀, eV.
        bulk_modulus: B₀, GPa.
        bulk_modulus_derivative: B₀′, from the narrowest range tried that is ±6 % at least (or from the one given).
        bulk_modulus_derivative_error: largest difference of it from B₀′ by one order more, of the inner volumes, and of
            the other ranges tried: in a smooth equation of state of the order of 0.1.
        rmse: eV/atom, root mean square of the fit's residuals.
        order_change: |ΔB₀|/B₀ by the next order of the expansion.
        holds: whether that is at most 1 %.
        warning: in words why not; where it does, what makes B₀′ doubtful: that it is outside of 2 to 8 or that
            it changes with the range by more than 1; or residuals of more than 1 % of the energies' range; or None.
    """

    atoms: Atoms
    volumes: Floats
    energies: Floats
    volume: float
    energy: float
    bulk_modulus: float
    bulk_modulus_derivative: float
    bulk_modulus_derivative_error: float
    rmse: float
    order_change: float
    holds: bool
    warning: str | None

    def _draw(self, figure: "Figure") -> None:
        axes, n = figure.subplots(), len(self.atoms)
        fine = np.linspace(self.volumes[0], self.volumes[-1], 200)
        line = birch_murnaghan(fine, self.energy, self.volume, self.bulk_modulus, self.bulk_modulus_derivative)
        axes.plot(self.volumes / n, (self.energies - self.energy) / n, "o")
        axes.plot(fine / n, (line - self.energy) / n, "-")
        axes.set(xlabel="volume, Å³/atom", ylabel="energy, eV/atom")
        derivative = f"{self.bulk_modulus_derivative:.2f} ± {self.bulk_modulus_derivative_error:.2f}"
        axes.set_title(f"B₀ = {self.bulk_modulus:.1f} GPa, B₀′ = {derivative}")


def birch_murnaghan(
    volumes: Floats, energy: float, volume: float, bulk_modulus: float, bulk_modulus_derivative: float
) -> Floats:
    """Energies, eV, of the equation above; volumes in Å³, bulk modulus in GPa."""
    f = ((volume / volumes) ** (2 / 3) - 1) / 2
    stiffness = 4.5 * volume * bulk_modulus * units.GPa
    return np.asarray(energy + stiffness * f**2 * (1 + (bulk_modulus_derivative - 4) * f))


def equation_of_state(
    structure: Any,
    calc: Any,
    *,
    width: float | None = None,
    points: int = 11,
    relax_positions: bool = True,
    relax_shape: bool = False,
    fmax: float = 0.01,
) -> EquationOfState:
    """Energy against volume around the volume of lowest energy, wherever the structure begins.

    Args:
        structure: a crystal: ASE, pymatgen, phonopy, or a path. Its cell is scaled without change of shape.
        calc: any ASE calculator; volumes are evaluated in one batch where it has them.
        width: half range of V/V₀; None for the widest of 10, 6, 4 and 2.5 % in which the fit holds.
        points: volumes, 6 or more.
        relax_positions: whether the atoms are relaxed at each volume, which needs forces.
        relax_shape: whether the cell does so too, at constant volume, which needs stress.
        fmax: eV/Å of these relaxations.

    Warns:
        where no range is found in which the fit holds; `holds` of the result then is False. Also with `warning`.

    Raises:
        ValueError: for arguments without a meaning, and for a structure without a minimum of the energy.
        RuntimeError: where a relaxation does not converge.
    """
    check_calculator(calc)
    check_count(6, points=points)
    check_positive(fmax=fmax)
    if width is not None:
        check_positive(width=width)
        if width > 0.5:
            raise ValueError(f"width is {width}; volumes are V₀ (1 ± width), with at most 0.5.")
    crystal = read_structure(structure, periodic=True)
    cell = "constant_volume" if relax_shape else "fixed"

    def energies_of(frames: Sequence[Atoms]) -> Floats:
        if relax_positions or relax_shape:
            return np.array([atoms.get_potential_energy() for atoms in at_rest(frames, calc, cell=cell, fmax=fmax)])
        return np.array([results["energy"] for results in evaluate_all(frames, calc, forces=False)], dtype=float)

    volume, tried = float(crystal.cell.volume), []
    for each in WIDTHS if width is None else (width,):
        tried.append(_around_the_minimum(crystal, volume, each, points, energies_of))
        volume = tried[-1].volume
        if tried[-1].holds:
            break
    found = _with_derivative(tried)
    found = replace(found, warning=" ".join(_doubts(found, tried)) or None)
    if found.warning:
        warnings.warn(found.warning, stacklevel=2)
    return found


def scaled(atoms: Atoms, volume: float) -> Atoms:
    """A copy of the structure with another volume, Å³, and the same shape."""
    copied = atoms.copy()
    copied.set_cell(
        atoms.cell.array * (volume / atoms.cell.volume) ** (1 / 3), scale_atoms=True, apply_constraint=False
    )
    return copied  # type: ignore[no-any-return]


def _around_the_minimum(crystal: Atoms, volume: float, width: float, points: int, energies_of: Any) -> EquationOfState:
    step, before = max(width, WIDTHS[0]), 0.0
    for _ in range(SHIFTS):
        volumes = volume * np.linspace(1 - width, 1 + width, points)
        energies = energies_of([scaled(crystal, v) for v in volumes])
        lowest = int(energies.argmin())
        if 0 < lowest < points - 1 and (fit := fit_birch_murnaghan(volumes, energies)) is not None:
            if abs(fit[1] / volume - 1) < CENTRED * width:
                return _described(crystal, volumes, energies, fit)
            volume = fit[1]
        else:
            way = float(np.sign(lowest - (points - 1) / 2))
            step *= 0.5 if way == -before else 1.0
            volume, before = volume * (1 + way * step), way
    raise ValueError(
        f"{crystal.get_chemical_formula()} has no minimum of the energy found between {crystal.cell.volume:.4g} Å³, "
        f"where it began, and {volume:.4g} Å³, where the search ended. Relax the structure first."
    )


@dataclass(frozen=True)
class _Derivative:
    """B₀′ from a range of V/V₀."""

    value: float
    range: str


def _derivatives(found: EquationOfState) -> list[_Derivative]:
    """B₀′ of a fit, by one order more, and from the inner three fifths of the volumes."""
    estimates = [_Derivative(found.bulk_modulus_derivative, _range(found, found.volumes))]
    cut = round(len(found.volumes) / 5)
    inner = slice(cut, len(found.volumes) - cut)
    for part, order in ((slice(None), 4), (inner, 3)):
        volumes, energies = found.volumes[part], found.energies[part]
        if len(volumes) > 4 and (fit := fit_birch_murnaghan(volumes, energies, order)) is not None:
            estimates.append(_Derivative(fit[3], _range(found, volumes)))
    return estimates


def _width(found: EquationOfState) -> float:
    return float(np.ptp(found.volumes)) / (2 * found.volume)


def _with_derivative(tried: Sequence[EquationOfState]) -> EquationOfState:
    """The last fit, with B₀′ of the narrowest range that is wide enough for it, and its error."""
    wide = [one for one in tried if _width(one) > 0.9 * DERIVATIVE_WIDTH] or tried[-1:]
    value = wide[-1].bulk_modulus_derivative
    error = max(abs(each.value - value) for one in tried for each in _derivatives(one))
    return replace(tried[-1], bulk_modulus_derivative=value, bulk_modulus_derivative_error=error)


def _doubts(found: EquationOfState, tried: Sequence[EquationOfState]) -> Iterator[str]:
    """A sentence for everything that speaks against the fit."""
    name, b, derivative = found.atoms.get_chemical_formula(), found.bulk_modulus, found.bulk_modulus_derivative
    if not found.holds:
        yield (
            f"the Birch–Murnaghan equation does not hold from {_range(found, found.volumes)} of the volume of {name}: "
            f"B₀ = {b:.4g} GPa changes by {found.order_change:.1%} with one order more."
        )
    if not DERIVATIVES[0] <= derivative <= DERIVATIVES[1]:
        yield f"B₀′ of {name} is {derivative:.2f}; crystals have {DERIVATIVES[0]:g} to {DERIVATIVES[1]:g}."
    if found.bulk_modulus_derivative_error > DERIVATIVE_CHANGE:
        estimates = sorted((e for one in tried for e in _derivatives(one)), key=lambda estimate: estimate.value)
        low, high = estimates[0], estimates[-1]
        yield (
            f"B₀′ of {name} depends on the range of volumes: {low.value:.2f} from {low.range}, {high.value:.2f} "
            f"from {high.range}."
        )
    spread = float(np.ptp(found.energies)) / len(found.atoms)
    if found.rmse > RESIDUAL * spread:
        yield (
            f"the energies of {name} are {1e3 * found.rmse:.2g} meV/atom off the fit, {found.rmse / spread:.1%} of "
            "their range: they are not smooth."
        )


def _range(found: EquationOfState, volumes: Floats) -> str:
    low, high = volumes[[0, -1]] / found.volume - 1
    return f"{low:+.1%} to {high:+.1%}"


def _described(crystal: Atoms, volumes: Floats, energies: Floats, fit: tuple[float, ...]) -> EquationOfState:
    higher = fit_birch_murnaghan(volumes, energies, order=4)
    change = float("inf") if higher is None else abs(higher[2] / fit[2] - 1)
    residuals = energies - birch_murnaghan(volumes, *fit)
    holds = bool(change <= ORDER_CHANGE)
    rmse = float(np.sqrt(np.mean(residuals**2))) / len(crystal)
    energy, volume, modulus, derivative = fit
    return EquationOfState(
        scaled(crystal, volume), volumes, energies, volume, energy, modulus, derivative, float("nan"), rmse, change,
        holds, None,
    )  # fmt: skip


def fit_birch_murnaghan(volumes: Floats, energies: Floats, order: int = 3) -> tuple[float, float, float, float] | None:
    """Least-squares fit of the equation.

    Args:
        volumes: Å³.
        energies: eV.
        order: 3 for the equation, 4 for one power of f more.

    Returns:
        E₀ (eV), V₀ (Å³), B₀ (GPa), B₀′; None where the fit has no minimum between the volumes.
    """
    reference = float(np.mean(volumes))
    y = (reference / volumes) ** (2 / 3) - 1
    fit = np.polynomial.Polynomial.fit(y, energies - energies[0], order).convert()
    slope, curvature, third = (fit.deriv(k) for k in (1, 2, 3))
    roots = [
        z.real for z in slope.roots() if abs(z.imag) < 1e-12 and y.min() < z.real < y.max() and curvature(z.real) > 0
    ]
    if not roots:
        return None
    y0 = float(min(roots, key=fit))
    volume, scale = reference * (1 + y0) ** -1.5, 2 * (1 + y0)  # dy = scale df
    second = float(curvature(y0)) * scale**2
    derivative = 4 + float(third(y0)) * scale**3 / (3 * second)
    return float(fit(y0) + energies[0]), float(volume), float(second / (9 * volume) / units.GPa), float(derivative)
