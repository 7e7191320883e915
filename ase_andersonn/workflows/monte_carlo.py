"""Metropolis Monte Carlo in one call: moves by name, averages with errors, restarts.

The engine is `ase_andersonn.mc.MetropolisMC`; a sweep is a step of it, of as many moves as there are atoms.
"""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_andersonn.mc import CellChange, Displacement, Estimate, MetropolisMC, Move, SpeciesSwap, VolumeChange
from ase_andersonn.mc.state_file import Arrays
from ase_andersonn.stop_signal import StopSignal

from ._evaluate import check_calculator, check_count, check_finite, check_positive, read_structure, with_results
from ._frames import average
from ._results import Result
from ._run_files import Frames, Log, Paths
from ._signals import Interrupted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
MOVES = ("displacement", "swap", "volume", "cell")
COLUMNS = {"Sweep": ".0f", "Epot/N[eV]": ".6f", "Volume[Å^3]": ".3f", "Accepted": ".4f"}
SAVE_EVERY = 10
"""Sweeps between two states from which a run may go on; each costs an evaluation of the whole structure."""


@dataclass(frozen=True, repr=False)
class MonteCarlo(Result):
    """A run of Monte Carlo.

    Attributes:
        atoms: the last structure, with its energy in its calculator.
        temperature: K.
        sweeps: made, those of the equilibration included.
        energies: eV, after each sweep.
        volumes: Å³, after each sweep; nan where not periodic in three directions.
        energy: mean since the equilibration with its standard error, eV.
        volume: likewise, Å³; None where it does not change.
        acceptance: share of accepted moves since the equilibration, by name.
        steps: sizes of the moves after their adaptation, by name: Å, change of ln V, strain.
        stopped_because: why the run ended before its last sweep, or None.
        trajectory, log, restart: files, or None.
    """

    atoms: Atoms
    temperature: float
    sweeps: int
    energies: Floats
    volumes: Floats
    energy: Estimate
    volume: Estimate | None
    acceptance: Mapping[str, float]
    steps: Mapping[str, float]
    stopped_because: str | None
    trajectory: Path | None
    log: Path | None
    restart: Path | None

    def _draw(self, figure: "Figure") -> None:
        axes, n = figure.subplots(), len(self.atoms)
        axes.plot(np.arange(1, len(self.energies) + 1), self.energies / n)
        axes.axhline(self.energy.mean / n, color="0.5")
        axes.set(xlabel="sweep", ylabel="energy, eV/atom")
        axes.set_title(", ".join(f"{name} {share:.0%}" for name, share in self.acceptance.items()))


def monte_carlo(
    structure: Any,
    calc: Any,
    *,
    temperature: float,
    sweeps: int,
    moves: Sequence[str | Move] = ("displacement",),
    pressure: float | None = None,
    equilibration: int | None = None,
    seed: int | None = None,
    trajectory: str | Path | None = None,
    log: str | Path | None = None,
    every: int = 10,
    restart: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
) -> MonteCarlo:
    """Metropolis Monte Carlo of one structure.

    Args:
        structure: ASE, pymatgen, phonopy, or a path; it stays as it is.
        calc: any ASE calculator; those with local energies (`mc.LocalEnergy`) compute what a move changes only.
        temperature: K.
        sweeps: of the whole run, also where one goes on; of as many moves as there are atoms.
        moves: `"displacement"` of an atom; `"swap"` of two atoms of different species; `"volume"` and `"cell"`
            (volume and shape), each once a sweep about; or moves of `ase_andersonn.mc`.
        pressure: eV/Å³ as everywhere in ASE, of volume and cell (0).
        equilibration: sweeps at the beginning in which steps are adapted, and which are left out of the averages; None
            for a fifth of all.
        seed: of the random numbers; None draws one.
        trajectory: ASE's, .traj.
        log: a text, or "-" for the screen.
        every: sweeps between two lines of the log, two frames.
        restart: .npz, the run's state, written every 10 sweeps; a run that goes on from it makes the same moves.
        resume: whether to go on from `restart` if it is there; everything but `sweeps` has to be the same, and the
            equilibration given.
        progress: whether to show a bar, with the time left.

    Returns:
        the run.

    Warns:
        where the run to go on with has all the sweeps already, and where averages are of nothing or of one structure.

    Raises:
        ValueError, TypeError: for arguments without a meaning, and a state that is damaged or of another run.
        OSError, InUseError: for files that cannot be written, or that another run writes.
        Interrupted: a KeyboardInterrupt with the `result` so far, after Ctrl-C or SIGTERM.
    """
    check_calculator(calc)
    check_positive(temperature=temperature)
    check_count(1, sweeps=sweeps, every=every)
    fifth = sweeps // 5 if equilibration is None else equilibration
    check_count(0, equilibration=fifth)
    if fifth >= sweeps:
        raise ValueError(f"equilibration is {fifth} of {sweeps} sweeps; it has to leave some for the averages.")
    paths = Paths(*(None if path is None else Path(path) for path in (trajectory, log, restart)))
    paths.check(resume)
    atoms = read_structure(structure)
    made, weights = _moves(moves, len(atoms), pressure)
    atoms.calc = calc
    with ExitStack() as stack:
        engine = _Sweeps(
            atoms, temperature, made, weights=weights, seed=seed, moves_per_step=len(atoms), equilibration=fifth,
            check_interval=0, restart=paths.restart, restart_interval=SAVE_EVERY,
        )  # fmt: skip
        engine.write_to(paths, every, stack)
        because = _run(engine, sweeps, progress)
    result = _result(engine, fifth, because, paths)
    if because is not None:
        raise Interrupted(result)
    return result


class _Sweeps(MetropolisMC):
    """Monte Carlo that keeps energies and volumes of all sweeps, and knows what of its files belongs to a state."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.series: list[list[float]] = []
        self.written = {"frames": 0, "log": 0}
        self.frames: Frames | None = None
        self.lines: Log | None = None
        super().__init__(*args, **kwargs)

    def write_to(self, paths: Paths, every: int, stack: ExitStack) -> None:
        """Open the files, and cut off what a killed run wrote after its state."""
        if paths.trajectory is not None:
            self.frames = Frames(paths.trajectory, self.written["frames"])
            stack.callback(self.frames.close)
        if paths.log is not None:
            self.lines = Log(paths.log, self.written["log"], COLUMNS)
            stack.callback(self.lines.close)
        self.attach(self._write, every)

    def after_step(self) -> None:
        """See `MetropolisMC.after_step`."""
        self.series.append([self.energy, _volume(self.atoms)])
        super().after_step()

    def get_state(self) -> tuple[Arrays, dict[str, Any]]:
        """See `Resumable.get_state`."""
        arrays, state = super().get_state()
        if self.frames is not None:
            self.frames.sync()
        written = {
            "frames": 0 if self.frames is None else self.frames.n,
            "log": 0 if self.lines is None else self.lines.size,
        }
        return {**arrays, "series": np.array(self.series).reshape(-1, 2)}, {**state, "written": written}

    def set_state(self, arrays: Arrays, state: dict[str, Any], source: str = "the state") -> None:
        """See `Resumable.set_state`."""
        if "series" not in arrays or "written" not in state:
            raise ValueError(f"{source} was not written by monte_carlo(); go on with it by MetropolisMC.")
        super().set_state(arrays, state, source)
        self.series, self.written = arrays["series"].tolist(), state["written"]

    def _write(self) -> None:
        """A line of the log, a frame."""
        n, attempted = len(self.atoms), sum(record.attempted for record in self._records)
        accepted = sum(record.accepted for record in self._records) / attempted if attempted else float("nan")
        if self.lines is not None:
            self.lines.add(self.nsteps, self.energy / n, _volume(self.atoms), accepted)
        if self.frames is not None:
            self.frames.add(with_results(self.atoms, {"energy": self.energy}), sweep=self.nsteps)


def _volume(atoms: Atoms) -> float:
    return float(atoms.cell.volume) if atoms.pbc.all() else float("nan")


def _run(engine: _Sweeps, sweeps: int, progress: bool) -> str | None:
    """Make sweeps; the signal that ended them early."""
    from tqdm import tqdm

    if 0 < engine.nsteps >= sweeps:
        warnings.warn(
            f"{engine.restart} has {engine.nsteps} sweeps already, and sweeps, of the whole run, is {sweeps}: nothing "
            f"is left to do. Give more than {engine.nsteps} to go on.",
            stacklevel=3,
        )
    left = max(sweeps - engine.nsteps, 0)
    bar = tqdm(total=sweeps, initial=engine.nsteps, unit="sweep", disable=None if progress else True)
    with StopSignal() as stop, bar, engine.locked():
        for last in engine.irun(left):
            bar.update(engine.nsteps - bar.n)
            if stop.name is not None and not last:
                return stop.name
        if engine.restart is not None and left:
            engine.save()
    return None


def _result(engine: _Sweeps, equilibration: int, signal: str | None, paths: Paths) -> MonteCarlo:
    energies, volumes = np.array(engine.series).reshape(-1, 2).T
    steps = {
        name: move.step for name, move in zip(engine.statistics, engine.moves, strict=True) if hasattr(move, "step")
    }
    changing = bool(len(volumes)) and bool(np.ptp(volumes) > 0)
    return MonteCarlo(
        with_results(engine.atoms, {"energy": engine.energy}),
        engine.temperature_K,
        engine.nsteps,
        energies,
        volumes,
        engine.energy_estimate,
        average(volumes[equilibration:]) if changing else None,
        {name: record.acceptance for name, record in engine.statistics.items()},
        steps,
        None if signal is None else _interrupted(engine, signal),
        paths.trajectory,
        paths.log,
        paths.restart,
    )


def _interrupted(engine: _Sweeps, signal: str) -> str:
    text = f"after {engine.nsteps} sweeps by {signal}"
    resumable = engine.nsteps - engine.nsteps % SAVE_EVERY
    return f"{text}; resume goes on from sweep {resumable}" if engine.restart is not None else text


def _moves(names: Sequence[str | Move], n_atoms: int, pressure: float | None) -> tuple[list[Move], list[float]]:
    if isinstance(names, str | Move):
        names = [names]
    if pressure is not None:
        check_finite(pressure=pressure)
    made: list[Move] = []
    for name in names:
        match name:
            case Move():
                made.append(name)
            case "displacement":
                made.append(Displacement(0.1))
            case "swap":
                made.append(SpeciesSwap())
            case "volume":
                made.append(VolumeChange(pressure or 0.0))
            case "cell":
                made.append(CellChange(pressure or 0.0))
            case _:
                raise ValueError(f"there is no move {name!r}; moves are {', '.join(MOVES)}, or of ase_andersonn.mc.")
    if not made:
        raise ValueError(f"moves is empty; give some of {', '.join(MOVES)}.")
    moves_cell = [isinstance(move, VolumeChange | CellChange) for move in made]
    if pressure is not None and not any(moves_cell):
        raise ValueError(f"a pressure of {pressure} eV/Å³ changes nothing without the move 'volume' or 'cell'.")
    return made, [1.0 if whole else float(max(n_atoms, 1)) for whole in moves_cell]
