"""Molecular dynamics by ASE's integrators: four ensembles, exact restarts, and a reason where a run stops early.

d/dt r = p / m,    d/dt p = −∂U/∂r    and what the ensemble adds, see `_integrators`.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_andersonn.mc.statistics import Estimate, estimate
from ase_andersonn.mc.validation import check_seed

from ._evaluate import check_calculator, check_count, read_structure, with_results
from ._integrators import Ensemble, Settings
from ._md_limits import Limits
from ._md_run import Run
from ._results import Result
from ._run_files import Paths
from ._signals import Interrupted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class MolecularDynamics(Result):
    """A run, every so many steps of it.

    Attributes:
        atoms: the last structure, unwrapped, with velocities, and energy and forces in its calculator.
        ensemble: see `molecular_dynamics`.
        steps: made in all.
        times: fs.
        temperatures: K, of the motions that are free.
        potential_energies: eV.
        total_energies: eV, potential and kinetic.
        volumes: Å³; nan where not periodic in three directions.
        pressures: GPa, with that of the atoms' motion; nan where the calculator gave no stress.
        temperature: mean and standard error since the equilibration, by the series' autocorrelation, K.
        potential_energy, total_energy: likewise, eV.
        volume: likewise, Å³; None where it does not change.
        drift: eV/atom/ps, slope of what the ensemble conserves (nve: the energy; bussi: the energy but for what the
            thermostat gave); nan for the others, and for fewer than three rows.
        stopped_because: why the run ended before its last step, or None.
        trajectory, log, restart: files, or None.
    """

    atoms: Atoms
    ensemble: str
    steps: int
    times: Floats
    temperatures: Floats
    potential_energies: Floats
    total_energies: Floats
    volumes: Floats
    pressures: Floats
    temperature: Estimate
    potential_energy: Estimate
    total_energy: Estimate
    volume: Estimate | None
    drift: float
    stopped_because: str | None
    trajectory: Path | None
    log: Path | None
    restart: Path | None

    def _draw(self, figure: "Figure") -> None:
        upper, lower = figure.subplots(2, sharex=True)
        upper.plot(self.times / 1e3, self.temperatures)
        n = len(self.atoms)
        lower.plot(self.times / 1e3, (self.total_energies - self.total_energies[0]) / n, label="total energy")
        lower.plot(self.times / 1e3, (self.potential_energies - self.potential_energies[0]) / n, label="potential")
        upper.set(ylabel="temperature, K", title=self.stopped_because or self.ensemble)
        lower.set(xlabel="time, ps", ylabel="change, eV/atom")
        lower.legend()


def molecular_dynamics(
    structure: Any,
    calc: Any,
    *,
    steps: int,
    ensemble: Ensemble = "nve",
    temperature: float | None = None,
    pressure: float = 0.0,
    timestep: float = 1.0,
    friction: float = 0.01,
    thermostat_time: float = 100.0,
    barostat_time: float = 1000.0,
    equilibration: int = 0,
    seed: int | None = None,
    trajectory: str | Path | None = None,
    log: str | Path | None = None,
    every: int = 10,
    restart: str | Path | None = None,
    resume: bool = False,
    max_temperature: float | None = None,
    max_extrapolation: float | None = None,
    max_spread: float | None = None,
    progress: bool = False,
) -> MolecularDynamics:
    """Molecular dynamics of one structure.

    Args:
        structure: ASE, pymatgen, phonopy, or a path; it stays as it is. Its velocities are kept if it has any, but for
            nve with a temperature; else they are Maxwell's and Boltzmann's.
        calc: any ASE calculator; with stress for npt.
        steps: of the whole run, also where one goes on.
        ensemble: `"nve"`, `"langevin"`, `"bussi"` (constant volume), `"npt"` (constant pressure; the cell keeps its
            shape).
        temperature: K; with nve that of the velocities at the beginning (about half of it stays in a crystal whose
            atoms begin on their sites), None for the structure's own.
        pressure: eV/Å³ as everywhere in ASE, of npt.
        timestep: fs.
        friction: 1/fs, of langevin and npt.
        thermostat_time: fs, of bussi.
        barostat_time: fs, of npt.
        equilibration: steps left out of the averages.
        seed: of all random numbers; None draws one.
        trajectory: ASE's, .traj; frames have `info["time"]` in fs and serve `workflows.trajectory`.
        log: a text, or "-" for the screen.
        every: steps between two rows of the result, two lines of the log, two frames.
        restart: .npz, the run's state. The calculator then begins anew (`reset`) every 100 steps, and a run that goes
            on from such a step makes the same steps to the last bit, where the calculator's results are repeatable
            (`AndersoNN`: with `compile` True or False).
        resume: whether to go on from `restart` if it is there; everything but `steps` has to be the same.
        max_temperature: K at which the run has exploded; None for 3000 K and ten times the temperature.
        max_extrapolation: largest mean of the calculator's `diagnostics["extrapolation"]`.
        max_spread: eV/Å, largest `diagnostics["forces_std"]` of a committee.
        progress: whether to show a bar, with the time left.

    Returns:
        the run, also where it stopped early; `stopped_because` says why.

    Warns:
        where the run to go on with has all the steps already.

    Raises:
        ValueError, TypeError: for arguments without a meaning, and a state that is damaged or of another run.
        OSError, InUseError: for files that cannot be written, or that another run writes.
        Interrupted: a KeyboardInterrupt with the `result` so far, after Ctrl-C or SIGTERM.
    """
    check_calculator(calc)
    check_count(0, steps=steps, equilibration=equilibration)
    check_count(1, every=every)
    settings = Settings(ensemble, temperature, pressure, timestep, friction, thermostat_time, barostat_time)
    settings.check()
    limits = Limits(max_temperature, max_extrapolation, max_spread)
    limits.check()
    seed = check_seed(seed)
    paths = Paths(*(None if path is None else Path(path) for path in (trajectory, log, restart)))
    paths.check(resume)
    atoms = read_structure(structure)
    with ExitStack() as stack:
        if (lock := paths.lock()) is not None:
            stack.enter_context(lock)
        run = Run(atoms, calc, settings, every, seed, paths, limits, stack)
        because, interrupted = run.go(steps, progress)
    result = _result(run, because, equilibration)
    if interrupted:
        raise Interrupted(result)
    return result


def _result(run: Run, because: str | None, equilibration: int) -> MolecularDynamics:
    """What the run gave."""
    _, potential, kinetic, volumes, pressures, exchanged = table = np.array(run.rows).T
    times, total = table[0] * run.settings.timestep, potential + kinetic
    temperatures = run.temperature(kinetic)
    chosen = table[0] >= min(equilibration, table[0][-1])
    nan = float("nan")
    conserved = {"nve": total, "bussi": total - exchanged}.get(run.settings.ensemble)
    drift = nan
    if conserved is not None and chosen.sum() > 2:
        drift = float(np.polyfit(times[chosen] / 1e3, conserved[chosen] / len(run.atoms), 1)[0])
    mean, own, whole = (_mean(series[chosen]) for series in (temperatures, potential, total))
    volume = _mean(volumes[chosen]) if run.settings.ensemble == "npt" else None
    known = dict(getattr(run.atoms.calc, "results", {}))
    if "energy" not in known:  # a state was kept last
        known = {"energy": run.atoms.get_potential_energy(), "forces": run.atoms.get_forces()}
    final = with_results(run.atoms, known)
    return MolecularDynamics(
        final, run.settings.ensemble, run.step, times, temperatures, potential, total, volumes, pressures, mean,
        own, whole, volume, drift, because, run.paths.trajectory, run.paths.log, run.paths.restart,
    )  # fmt: skip


def _mean(series: Floats) -> Estimate:
    """Mean and standard error; of one value without the latter."""
    nan = float("nan")
    return estimate(series) if len(series) > 1 else Estimate(float(series.mean()), nan, nan, len(series))
