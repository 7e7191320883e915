"""Molecular dynamics by ASE's integrators: four ensembles, exact restarts, and a reason where a run stops early.

d/dt r = p / m,    d/dt p = −∂U/∂r    and what the ensemble adds, see `_integrators`.
"""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from ase_andersonn.mc.arguments import check_seed
from ase_andersonn.mc.statistics import Estimate, estimate

from ._evaluate import check_calculator, check_count, read_structure, with_results
from ._integrators import Ensemble, Settings, carried, degrees_of_freedom, forget_results, integrator, prepare
from ._md_limits import Limits, present_energy
from ._results import Result
from ._run_files import Frames, Log, Paths, State, fingerprint
from ._signals import StopSignal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
FRESH_EVERY = 100
"""Steps after which a run with a restart file makes its results anew, and may be gone on with."""
SAVE_SECONDS = 5.0
"""Between two writings of the restart file; a killed run loses no more than that and `FRESH_EVERY` steps."""
LOOK_EVERY = 10
"""Steps between two looks at the distances of atoms."""
ENERGY_TOLERANCE = 1e-5
"""eV/atom by which a state's energy may differ from the calculator's."""
COLUMNS = {
    "Time[ps]": ".4f", "Etot/N[eV]": ".6f", "Epot/N[eV]": ".6f", "Ekin/N[eV]": ".6f", "T[K]": ".1f",
    "Volume[Å^3]": ".3f", "Pressure[GPa]": ".4f",
}  # fmt: skip


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
        temperature: mean and standard error since the equilibration, by the series' autocorrelation.
        drift: eV/atom/ps, slope of what the ensemble conserves (nve: the energy; bussi: the energy but for what the
            thermostat gave); nan for the others, and for fewer than three rows.
        stopped_because: why the run ended before its last step, or None.
        interrupted: whether Ctrl-C or SIGTERM did it.
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
    drift: float
    stopped_because: str | None
    interrupted: bool
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
        max_spread: eV/Å, largest `diagnostics["forces_spread"]` of a committee.
        progress: whether to show a bar, with the time left.

    Returns:
        the run, also where it stopped early; `stopped_because` says why. Ctrl-C and SIGTERM end it after a step.

    Raises:
        ValueError, TypeError: for arguments without a meaning, and a state that is damaged or of another run.
        OSError, InUseError: for files that cannot be written, or that another run writes.
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
        run = _Run(atoms, calc, settings, every, seed, paths, limits, stack)
        because, interrupted = run.go(steps, progress)
    return run.result(because, interrupted, equilibration)


class _Run:
    """A run between two steps."""

    def __init__(
        self,
        atoms: Atoms,
        calc: Any,
        settings: Settings,
        every: int,
        seed: int | None,
        paths: Paths,
        limits: Limits,
        stack: ExitStack,
    ) -> None:
        self.atoms, self.settings, self.paths, self.every = atoms, settings, paths, every
        sequence = np.random.SeedSequence(seed)
        self.rng = np.random.Generator(np.random.PCG64(sequence))
        self.start = {"structure": fingerprint(atoms), "formula": atoms.get_chemical_formula()}
        self.asked = {**settings.to_dict(), "every": every}
        self.step, self.rows, self.seed = 0, list[list[float]](), sequence.entropy
        self.frames: Frames | None = None
        self.log: Log | None = None
        self.kept: State | None = None
        self.resumable = 0
        state = None
        if paths.restart is not None and paths.restart.exists():
            state = State.read(paths.restart)
            state.check(paths.restart, atoms, self.asked | {"seed": state.rest["seed"] if seed is None else seed})
        prepare(atoms, settings, self.rng)
        self.n_free = degrees_of_freedom(atoms, settings)
        atoms.calc = calc
        if hasattr(calc, "reset"):
            calc.reset()
        self.limits = limits
        limits.begin(atoms, settings.temperature, self._temperature(atoms.get_kinetic_energy()))
        if state is not None:
            self._take_atoms(state)
        self.dynamics = integrator(atoms, settings, self.rng)
        if state is not None:
            self._take(state)
        self.asked["seed"] = self.seed
        rest = {} if state is None else state.rest
        if paths.trajectory is not None:
            self.frames = Frames(paths.trajectory, rest.get("frames") or 0)
            stack.callback(self.frames.close)
        if paths.log is not None:
            self.log = Log(paths.log, rest.get("log") or 0, COLUMNS)
            stack.callback(self.log.close)

    def go(self, steps: int, progress: bool) -> tuple[str | None, bool]:
        """Make steps; why they ended early, and whether by a signal."""
        from tqdm import tqdm

        saved = time.monotonic()
        bar = tqdm(total=steps, initial=self.step, unit="step", disable=None if progress else True)
        try:
            with StopSignal() as stop, bar:
                if not self.rows:
                    self._record()
                because = self.limits.why(self.dynamics, self._temperature(self.atoms.get_kinetic_energy()), look=True)
                while because is None and self.step < steps:
                    if stop.name is not None:
                        return self._interrupted(stop.name), True
                    self.dynamics.step()
                    self.step += 1
                    self.dynamics.nsteps = self.step
                    bar.update()
                    temperature = self._temperature(self.atoms.get_kinetic_energy())
                    because = self.limits.why(self.dynamics, temperature, look=self.step % LOOK_EVERY == 0)
                    if because is None and self.step % self.every == 0:
                        self._record()
                    if because is None and self.paths.restart is not None and self.step % FRESH_EVERY == 0:
                        self._keep()
                        if time.monotonic() - saved > SAVE_SECONDS:
                            self._save()
                            saved = time.monotonic()
                if because is None and self.paths.restart is not None and self.step % FRESH_EVERY:
                    self._keep()
        finally:
            self._save()
        return (because if because is None else f"after {self.step} steps {because}"), False

    def result(self, because: str | None, interrupted: bool, equilibration: int) -> MolecularDynamics:
        """What the run gave."""
        _, potential, kinetic, volumes, pressures, exchanged = table = np.array(self.rows).T
        times, total = table[0] * self.settings.timestep, potential + kinetic
        temperatures = self._temperature(kinetic)
        chosen = table[0] >= min(equilibration, table[0][-1])
        nan = float("nan")
        conserved = {"nve": total, "bussi": total - exchanged}.get(self.settings.ensemble)
        drift = nan
        if conserved is not None and chosen.sum() > 2:
            drift = float(np.polyfit(times[chosen] / 1e3, conserved[chosen] / len(self.atoms), 1)[0])
        mean = Estimate(float(temperatures[chosen].mean()), nan, nan, int(chosen.sum()))
        if mean.n > 1:
            mean = estimate(temperatures[chosen])
        known: Mapping[str, Any] = getattr(self.atoms.calc, "results", {})
        final = with_results(self.atoms, dict(known))
        return MolecularDynamics(
            final, self.settings.ensemble, self.step, times, temperatures, potential, total, volumes, pressures, mean,
            drift, because, interrupted, self.paths.trajectory, self.paths.log, self.paths.restart,
        )  # fmt: skip

    def _temperature(self, kinetic: Any) -> Any:
        return 2.0 * kinetic / (self.n_free * units.kB)

    def _record(self) -> None:
        """A row of the result, a line of the log, a frame."""
        atoms, n = self.atoms, len(self.atoms)
        atoms.get_forces()
        potential, kinetic = present_energy(atoms), float(atoms.get_kinetic_energy())
        temperature = self._temperature(kinetic)
        volume = float(atoms.cell.volume) if atoms.pbc.all() else float("nan")
        stress = getattr(atoms.calc, "results", {}).get("stress")
        pressure = float("nan")
        if stress is not None:
            pressure = float(n * units.kB * temperature / volume - np.mean(stress[:3])) / units.GPa
        exchanged = float(getattr(self.dynamics, "transferred_energy", 0.0))
        self.rows.append([self.step, potential, kinetic, volume, pressure, exchanged])
        at = self.step * self.settings.timestep
        if self.log is not None:
            energies = (potential + kinetic) / n, potential / n, kinetic / n
            self.log.add(at / 1e3, *energies, temperature, volume, pressure)
        if self.frames is not None:
            self.frames.add(atoms, step=self.step, time=at)

    def _keep(self) -> None:
        """Keep a state to go on from, and go on from it."""
        energy = float(self.atoms.get_potential_energy())
        forget_results(self.dynamics)
        self.resumable = self.step
        arrays = {
            "positions": self.atoms.positions.copy(),
            "momenta": self.atoms.get_momenta(),
            "cell": self.atoms.cell.array.copy(),
            "rows": np.array(self.rows),
        }
        self.kept = State(arrays, {
            **self.start,
            "settings": self.asked,
            "step": self.step,
            "energy": energy,
            "rng": self.rng.bit_generator.state,
            "seed": self.seed,
            "carried": carried(self.dynamics, self.settings),
            "frames": None if self.frames is None else self.frames.n,
            "log": None if self.log is None else self.log.size,
        })  # fmt: skip

    def _save(self) -> None:
        if self.kept is not None and self.paths.restart is not None:
            if self.frames is not None:
                self.frames.sync()
            self.kept.write(self.paths.restart)
            self.kept = None

    def _take_atoms(self, state: State) -> None:
        self.atoms.set_cell(state.arrays["cell"])
        self.atoms.positions[:] = state.arrays["positions"]
        self.atoms.arrays["momenta"] = np.array(state.arrays["momenta"])

    def _take(self, state: State) -> None:
        """Go on from a state; the integrator is that of its structure."""
        self.step = self.resumable = self.dynamics.nsteps = int(state.rest["step"])
        self.rows, self.seed = state.arrays["rows"].tolist(), state.rest["seed"]
        self.rng.bit_generator.state = state.rest["rng"]
        for name, value in state.rest["carried"].items():
            setattr(self.dynamics, name, value)
        energy, n = float(self.atoms.get_potential_energy()), len(self.atoms)
        if not abs(energy - state.rest["energy"]) <= ENERGY_TOLERANCE * n:
            raise ValueError(
                f"{self.paths.restart} was written with another calculator, another model or other settings of it: "
                f"the energy is {energy / n:.6f} eV/atom and was {state.rest['energy'] / n:.6f}."
            )
        forget_results(self.dynamics)

    def _interrupted(self, name: str) -> str:
        text = f"after {self.step} steps by {name}"
        return f"{text}; resume goes on from step {self.resumable}" if self.paths.restart else text
