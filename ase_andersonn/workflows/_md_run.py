"""A run of molecular dynamics: its steps, its rows, its files, and the states it can go on from."""

import time
import warnings
from contextlib import ExitStack
from typing import Any

import numpy as np
from ase import Atoms, units

from ase_andersonn.stop_signal import StopSignal

from ._integrators import Settings, carried, degrees_of_freedom, forget_results, integrator, prepare
from ._md_limits import Limits, present_energy
from ._run_files import Frames, Log, Paths, State, fingerprint
from .reason import reason

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


class Run:
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
        limits.begin(atoms, settings.temperature, self.temperature(atoms.get_kinetic_energy()))
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

        if 0 < self.step >= steps:
            warnings.warn(
                f"{self.paths.restart} has {self.step} steps already, and steps, of the whole run, is {steps}: nothing "
                f"is left to do. Give more than {self.step} to go on.",
                stacklevel=3,
            )
        saved = time.monotonic()
        bar = tqdm(total=steps, initial=self.step, unit="step", disable=None if progress else True)
        try:
            with StopSignal() as stop, bar:
                if not self.rows:
                    self._record()
                because = self.limits.why(self.dynamics, self.temperature(self.atoms.get_kinetic_energy()), look=True)
                while because is None and self.step < steps:
                    if stop.name is not None:
                        return self._interrupted(stop.name), True
                    because = self._advance()
                    if because is not None:
                        break
                    self.step += 1
                    self.dynamics.nsteps = self.step
                    bar.update()
                    temperature = self.temperature(self.atoms.get_kinetic_energy())
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
        return (because if because is None else f"after {self.step} steps {because}{self._remedy()}"), False

    def _advance(self) -> str | None:
        """Make a step; why it could not be made, where the calculator has no answer for atoms that fly apart.

        The atoms then are where they were before.
        """
        atoms = self.atoms
        before = atoms.positions.copy(), atoms.get_momenta(), atoms.cell.array.copy()
        try:
            self.dynamics.step()
        except Exception as error:
            because = self.limits.exploded(atoms, self.temperature(atoms.get_kinetic_energy()), look=True)
            if because is None:
                raise
            atoms.set_cell(before[2])
            atoms.positions[:], atoms.arrays["momenta"] = before[0], before[1]
            forget_results(self.dynamics)
            return f"{because} ({reason(error)})"
        return None

    def _remedy(self) -> str:
        """What to try, where the run exploded."""
        if not self.limits.has_exploded:
            return ""
        step = self.settings.timestep
        return (
            f"; the time step is {step:g} fs: try a smaller one, such as {step / 4:g} fs, a structure that was relaxed "
            "first, or a lower temperature"
        )

    def temperature(self, kinetic: Any) -> Any:
        """K, of kinetic energies in eV."""
        return 2.0 * kinetic / (self.n_free * units.kB)

    def _record(self) -> None:
        """A row of the result, a line of the log, a frame."""
        atoms, n = self.atoms, len(self.atoms)
        atoms.get_forces()
        potential, kinetic = present_energy(atoms), float(atoms.get_kinetic_energy())
        temperature = self.temperature(kinetic)
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
