"""What a trajectory tells: structure, diffusion, vibrations, heat capacity, density and pressure.

Each is the average of a series over the frames, and its error is that of blocks (Flyvbjerg and Petersen, J. Chem. Phys.
91, 461 (1989)): with x(t₀) a pair's count, a displacement from t₀ on, or a fluctuation, the result is ⟨x⟩ ± error. What
is linear in ⟨x⟩ (a slope, a Fourier sum) is taken of each x(t₀) first, so that its error holds the correlation of all
times.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from ase import units
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from ase_andersonn.mc.statistics import Estimate

from ._evaluate import check_count, check_positive
from ._frames import average, averages, read_frames
from ._results import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
GRAMS = 1e24 / (units.mol)
"""g/cm³ of 1 u/Å³."""


@dataclass(frozen=True, repr=False)
class RadialDistribution(Result):
    """Pairs at a distance, over those of independent atoms of the same density.

    Attributes:
        r: Å, middles of the shells.
        g: g(r).
        error: its standard error.
        coordination: neighbours within the outer edge of each shell, of an atom of the first species.
    """

    r: Floats
    g: Floats
    error: Floats
    coordination: Floats

    def _draw(self, figure: "Figure") -> None:
        axes = figure.subplots()
        _band(axes, self.r, self.g, self.error)
        axes.set(xlabel="distance, Å", ylabel="g(r)")


def radial_distribution(
    frames: Any, *, r_max: float = 6.0, bins: int = 120, pair: tuple[str, str] | None = None, skip: int = 0
) -> RadialDistribution:
    """g(r) = n(r) / (4 π r² dr ρ), n(r) the neighbours of an atom in a shell, periodic images among them.

    Args:
        frames: a path, or a list of Atoms that repeat in three directions.
        r_max: Å.
        bins: shells up to there.
        pair: symbols of the atom and of its neighbours; None for all.
        skip: frames at the beginning that are left out.
    """
    check_positive(r_max=r_max)
    check_count(1, bins=bins)
    read = read_frames(frames, skip=skip)
    volumes = read.volumes()
    around, seen = (read.atoms_of(symbol) for symbol in pair or (None, None))
    edges = np.linspace(0.0, r_max, bins + 1)
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    counts = np.empty((len(volumes), bins))
    for k, atoms in enumerate(read.images):
        i, j, d = neighbor_list("ijd", atoms, r_max)
        chosen = np.isin(i, around) & np.isin(j, seen)
        counts[k] = np.histogram(d[chosen], edges)[0] / len(around)
    g, error = averages(counts * volumes[:, None] / (shells * len(seen)))
    return RadialDistribution(0.5 * (edges[1:] + edges[:-1]), g, error, np.cumsum(counts.mean(0)))


@dataclass(frozen=True, repr=False)
class Diffusion(Result):
    """Mean-square displacements and the diffusion coefficient.

    Attributes:
        times: fs.
        msd: Å², of an atom, from the centre of mass.
        error: its standard error.
        coefficient: D, cm²/s.
        fitted: fs, between which lags the slope was taken.
    """

    times: Floats
    msd: Floats
    error: Floats
    coefficient: Estimate
    fitted: tuple[float, float]

    def _draw(self, figure: "Figure") -> None:
        axes = figure.subplots()
        _band(axes, self.times / 1e3, self.msd, self.error)
        axes.axvspan(*(time / 1e3 for time in self.fitted), color="0.93", zorder=0)
        axes.set(xlabel="time, ps", ylabel="mean-square displacement, Å²")
        axes.set_title(f"D = ({self.coefficient.mean:.3g} ± {self.coefficient.error:.1g}) cm²/s")


def diffusion(
    frames: Any,
    *,
    spacing: float | None = None,
    lag: float | None = None,
    symbol: str | None = None,
    skip: int = 0,
) -> Diffusion:
    """⟨|r(t₀ + t) − r(t₀)|²⟩ and D, a sixth of its slope (Einstein), between half of the longest lag and that.

    Positions may be wrapped or not; an atom moves by less than half a cell between two frames.

    Args:
        frames: a path, or a list of Atoms.
        spacing: fs between frames; None for what they say themselves.
        lag: fs, the longest; None for a quarter of the trajectory.
        symbol: of the element; None for all atoms.
        skip: frames at the beginning that are left out.
    """
    read = read_frames(frames, spacing, skip)
    step = read.timed()
    n_lags = _lags(lag, step, len(read.images))
    paths = read.paths()[:, read.atoms_of(symbol)]
    starts = len(paths) - n_lags
    squares = np.zeros((starts, n_lags + 1))
    for k in range(1, n_lags + 1):
        squares[:, k] = ((paths[k : k + starts] - paths[:starts]) ** 2).sum(-1).mean(-1)
    msd, error = averages(squares)
    times = step * np.arange(n_lags + 1, dtype=np.float64)
    low = max(n_lags // 2, 1) if n_lags > 2 else 0
    t = times[low:] - times[low:].mean()
    slopes = squares[:, low:] @ (t / (t**2).sum())
    coefficient = _scaled(average(slopes), 1e-1 / 6)  # 1 Å²/fs is 0.1 cm²/s
    return Diffusion(times, msd, error, coefficient, (float(times[low]), float(times[-1])))


@dataclass(frozen=True, repr=False)
class Vibrations(Result):
    """Velocity autocorrelation and the spectrum of vibrations.

    Attributes:
        times: fs.
        autocorrelation: c(t) = Σ m ⟨v(0) · v(t)⟩ / Σ m ⟨v²⟩.
        error: its standard error.
        frequencies: THz.
        spectrum: 1/THz, 4 ∫ c cos(2πft) w dt, whose integral over f is 1; w is Hann's window.
        spectrum_error: its standard error.
    """

    times: Floats
    autocorrelation: Floats
    error: Floats
    frequencies: Floats
    spectrum: Floats
    spectrum_error: Floats

    def _draw(self, figure: "Figure") -> None:
        left, right = figure.subplots(1, 2)
        _band(left, self.times / 1e3, self.autocorrelation, self.error)
        left.set(xlabel="time, ps", ylabel="velocity autocorrelation")
        _band(right, self.frequencies, self.spectrum, self.spectrum_error)
        right.set(xlabel="frequency, THz", ylabel="spectrum, 1/THz")


def vibrations(
    frames: Any,
    *,
    spacing: float | None = None,
    lag: float | None = None,
    symbol: str | None = None,
    skip: int = 0,
) -> Vibrations:
    """Velocity autocorrelation and vibrational spectrum, the density of states where vibrations are harmonic.

    Args:
        frames: a path, or a list of Atoms, with velocities.
        spacing: fs between frames; None for what they say themselves. The highest frequency is 1 / (2 spacing).
        lag: fs, the longest, whose inverse is the resolution of the spectrum; None for a quarter of the trajectory.
        symbol: of the element; None for all atoms.
        skip: frames at the beginning that are left out.
    """
    read = read_frames(frames, spacing, skip)
    step = read.timed()
    n_lags = _lags(lag, step, len(read.images))
    chosen = read.atoms_of(symbol)
    moving = read.velocities()[:, chosen] * np.sqrt(read.first.get_masses()[chosen])[:, None]
    starts = len(moving) - n_lags
    products = np.stack([(moving[k : k + starts] * moving[:starts]).sum((-1, -2)) for k in range(n_lags + 1)], axis=1)
    products /= (moving**2).sum((-1, -2)).mean()
    c, error = averages(products)
    times = step * np.arange(n_lags + 1, dtype=np.float64)
    frequencies = np.arange(n_lags + 1) / (2 * n_lags * step)
    weights = step * np.cos(0.5 * np.pi * np.arange(n_lags + 1) / n_lags) ** 2
    weights[0] *= 0.5  # the trapezoidal rule
    waves = np.cos(2 * np.pi * np.outer(times, frequencies)) * weights[:, None]
    spectrum, spectrum_error = averages(products @ (4e-3 * waves))  # fs are 1/(1000 THz)
    return Vibrations(times, c, error, 1e3 * frequencies, spectrum, spectrum_error)


@dataclass(frozen=True, repr=False)
class Averages(Result):
    """Means over a trajectory, each with its standard error.

    Attributes:
        energy: potential energy, eV.
        temperature: K, of 3 N − 3 motions.
        density: g/cm³; None where not periodic in three directions.
        volume: Å³; likewise.
        pressure: GPa, with that of the motion; None where frames have no stress.
    """

    energy: Estimate
    temperature: Estimate
    density: Estimate | None
    volume: Estimate | None
    pressure: Estimate | None

    def _draw(self, figure: "Figure") -> None:
        named = {"energy, eV": self.energy, "temperature, K": self.temperature, "pressure, GPa": self.pressure}
        found = {name: value for name, value in named.items() if value is not None}
        for axes, (name, value) in zip(np.atleast_1d(figure.subplots(1, len(found))), found.items(), strict=True):
            axes.errorbar([0], [value.mean], [value.error], fmt="o", capsize=4)
            axes.set(title=name, xticks=[])


def mean_values(frames: Any, *, skip: int = 0) -> Averages:
    """Mean energy, temperature, density, volume and pressure, P = N k T / V − tr σ / 3.

    Args:
        frames: a path, or a list of Atoms with energies and velocities.
        skip: frames at the beginning that are left out.
    """
    read = read_frames(frames, skip=skip)
    n, masses = len(read.first), read.first.get_masses()
    moving = (masses[:, None] * (read.velocities() / units.fs) ** 2).sum((-1, -2))
    temperatures = moving / ((3 * n - 3) * units.kB) if n > 1 else np.full(len(moving), np.nan)
    density = volume = pressure = None
    if read.first.pbc.all():
        volumes = read.volumes()
        density, volume = average(GRAMS * masses.sum() / volumes), average(volumes)
        if all("stress" in getattr(atoms.calc, "results", {}) for atoms in read.images):
            ideal = n * units.kB * temperatures / volumes
            pressure = average((ideal - read.stresses()[:, :3].mean(1)) / units.GPa)
    return Averages(average(read.energies()), average(temperatures), density, volume, pressure)


@dataclass(frozen=True, repr=False)
class HeatCapacity(Result):
    """Heat capacity from fluctuations.

    Attributes:
        per_atom: units of k; 3 in a harmonic crystal.
        total: eV/K.
        molar: J/(K mol) of atoms.
        constant: what was constant, `"volume"` or `"pressure"`.
    """

    per_atom: Estimate
    total: Estimate
    molar: Estimate
    constant: str

    def _draw(self, figure: "Figure") -> None:
        axes = figure.subplots()
        axes.errorbar([0], [self.per_atom.mean], [self.per_atom.error], fmt="o", capsize=4)
        axes.axhline(3.0, color="0.7")
        axes.set(ylabel=f"heat capacity at constant {self.constant}, k/atom", xticks=[])


def heat_capacity(
    frames: Any,
    *,
    temperature: float,
    ensemble: Literal["nvt", "npt"] = "nvt",
    pressure: float = 0.0,
    skip: int = 0,
) -> HeatCapacity:
    """C_V = (3/2) N k + ⟨(U − ⟨U⟩)²⟩ / (k T²), of a thermostat's trajectory; C_P likewise of U + P V.

    The kinetic energy's share is the exact one. (Not of nve, whose energy does not fluctuate.)

    Args:
        frames: a path, or a list of Atoms with energies.
        temperature: K, of the thermostat.
        ensemble: `"nvt"` or `"npt"`.
        pressure: eV/Å³, of the barostat.
        skip: frames at the beginning that are left out.
    """
    check_positive(temperature=temperature)
    if ensemble not in ("nvt", "npt"):
        raise ValueError(f"ensemble is {ensemble!r}; it is nvt or npt.")
    read = read_frames(frames, skip=skip)
    series = read.energies() + (pressure * read.volumes() if ensemble == "npt" else 0.0)
    mean = average(series)
    spread = average((series - mean.mean) ** 2)
    unbiased = 1.0 / (1.0 - 1.0 / max(mean.n_effective, 2.0))  # the mean is the series' own
    n = len(read.first)
    found = _scaled(spread, unbiased / (units.kB * temperature) ** 2 / n, shift=1.5)
    return HeatCapacity(
        found,
        _scaled(found, n * units.kB),
        _scaled(found, units.kB * units.mol / units.J),
        "volume" if ensemble == "nvt" else "pressure",
    )


def _scaled(value: Estimate, factor: float, shift: float = 0.0) -> Estimate:
    return Estimate(shift + factor * value.mean, abs(factor) * value.error, value.tau, value.n)


def _lags(lag: float | None, step: float, n_frames: int) -> int:
    if lag is not None:
        check_positive(lag=lag)
    found = max(n_frames // 4, 1) if lag is None else round(lag / step)
    if not 1 <= found <= n_frames - 2:
        raise ValueError(
            f"the longest lag is {found} times {step:g} fs; {n_frames} frames have room for 1 to {n_frames - 2}."
        )
    return found


def _band(axes: Any, x: Floats, y: Floats, error: Floats) -> None:
    axes.plot(x, y)
    axes.fill_between(x, y - error, y + error, alpha=0.3)
