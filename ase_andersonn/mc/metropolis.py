"""Metropolis Monte Carlo with any ASE calculator.

    accept with probability  min(1, exp(-dE / kT + r))

where r is the contribution of ensemble and proposal (`criteria`). Metropolis, Rosenbluth, Rosenbluth, Teller and
Teller, J. Chem. Phys. 21, 1087 (1953).
"""

import copy
import math
import warnings
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from ase import Atoms

from ase_andersonn.deprecated import renamed_method

from .context import Context
from .driver import write_image
from .local_energy import check_finite, energies_of
from .moves.base import Adaptive, Move, check_fields
from .simulation import Simulation
from .state_file import StateFile
from .statistics import Blocking, Estimate, MoveRecord
from .sublattice import Sublattice
from .validation import check_numbers, check_seed, check_temperature, check_weights

ADAPT_EVERY = 100
"""Number of attempts of a move between two adaptations of its step size."""


class MetropolisMC(Simulation):
    """Metropolis Monte Carlo with the interface of ASE's dynamics; the given atoms are changed in place.

    The calculator evaluates each trial structure; one with the methods of `LocalEnergy` also gets the list of changed
    atoms. A move with an energy that is not finite is rejected; after an error of the calculator the atoms are restored
    and the error is passed on. Changes of the atoms between two runs, or by an interrupted run, are detected. Code that
    changes the atoms during a run, such as an observer, has to call `refresh`.

    Args:
        atoms: the structure with its calculator.
        temperature_K: K.
        moves: one or several moves, see `ase_andersonn.mc`; they are copied.
        weights: relative frequency of each move; equal by default.
        seed: an integer makes the run reproducible; None draws one (attribute `seed`).
        moves_per_step: moves attempted in one step. Logs, observers and intervals count steps.
        equilibration: number of initial steps in which step sizes are adapted to the moves' target acceptance. Then
            they are fixed, and statistics are reset. (There is no detailed balance during adaptation.)
        local: whether to use the methods of `LocalEnergy` if the calculator has them.
        check_interval: steps between comparisons of the running energy with a full evaluation; 0 for none. By default
            1000, or one move per atom in larger systems.
        check_tolerance: largest difference in this comparison, eV/atom.
        restart: a state file. If it exists, it is read, the atoms are set to its state, and the run continues bit for
            bit as without interruption (for the same intervals). It is written atomically, and locked against other
            simulations during a run.
        restart_interval: steps between two writings of the file, each with a full evaluation; default as for
            `check_interval`.
        logfile: a path, "-" for the screen, or an open file.
        trajectory: a path or an ASE writer; structures are written with the running energy.
        append_trajectory: whether to append to an existing trajectory; by default only if a state file was read.
        loginterval: steps between two lines of the log, and two structures of the trajectory.

    Attributes:
        energy: energy of the atoms, eV.
        moves: the moves, with their current step sizes.
        statistics: `MoveRecord` by name of the move.
        energy_estimate: mean energy since the equilibration, with its standard error.

    Raises:
        ValueError: for invalid input, before anything is changed.
        InUseError: if another simulation uses the state file; the message names its process.
        EnergyMismatchError: from `run` and `irun`, if the running energy differs from that of the atoms.
    """

    def __init__(
        self,
        atoms: Atoms,
        temperature_K: float,
        moves: Move | Sequence[Move],
        *,
        weights: Sequence[float] | None = None,
        seed: int | None = None,
        moves_per_step: int = 1,
        equilibration: int = 0,
        local: bool = True,
        check_interval: int | None = None,
        check_tolerance: float = 1e-5,
        restart: str | Path | None = None,
        restart_interval: int | None = None,
        logfile: IO[str] | str | Path | None = None,
        trajectory: Any = None,
        append_trajectory: bool | None = None,
        loginterval: int = 100,
    ) -> None:
        self.atoms = atoms
        self.moves: list[Move] = copy.deepcopy(list(moves) if isinstance(moves, Sequence) else [moves])
        self.weights, self._cumulative = check_weights(weights, self.moves)
        check_numbers(moves_per_step, equilibration, check_interval, check_tolerance, restart_interval)
        super().__init__(logfile, loginterval)
        self.moves_per_step, self.equilibration = moves_per_step, equilibration
        many = any(isinstance(move, Sublattice) for move in self.moves)
        seldom = 1000 if many else max(1000, len(atoms) // moves_per_step)
        self.check_interval = seldom if check_interval is None else check_interval
        self.restart_interval = seldom if restart_interval is None else restart_interval
        self.restart, self.check_tolerance = None if restart is None else Path(restart), check_tolerance
        sequence = np.random.SeedSequence(check_seed(seed))
        self.seed = sequence.entropy
        self.fields = check_fields(self.moves)
        self.context = Context(
            atoms,
            check_temperature(temperature_K),
            np.random.Generator(np.random.PCG64(sequence)),
            count_varies=any("count" in move.changes for move in self.moves),
            composition_varies=any(move.varies_composition for move in self.moves),
        )
        self._settings = self._describe()
        self.energies = energies_of(atoms, local)
        self._begin_statistics()
        self._windows = [[0, 0] for _ in self.moves]  # attempted and accepted at the last adaptation
        self.state_file = None if self.restart is None else StateFile(self.restart)
        saved = None if self.state_file is None else self.state_file.read()
        if saved is None:
            self._check_moves()
            self.energy = check_finite(self.energies.fresh())
            self.end()
        else:
            self.set_state(*saved, source=str(self.restart))
        append = saved is not None if append_trajectory is None else append_trajectory
        self._open_trajectory(trajectory, append, loginterval)

    @property
    def temperature_K(self) -> float:
        """Temperature, K; may be set between steps, e.g. for annealing."""
        return self.context.temperature_K

    @temperature_K.setter
    def temperature_K(self, value: float) -> None:
        self.context.temperature_K = check_temperature(value)

    @property
    def equilibrating(self) -> bool:
        """Whether step sizes are still adapted."""
        return self.nsteps < self.equilibration

    @property
    def statistics(self) -> dict[str, MoveRecord]:
        """Statistics by name of the move; further moves of the same kind have a number after the name."""
        names: list[str] = []
        for settings in self._settings["moves"]:
            name = settings["move"] if "of" not in settings else f"{settings['move']}({settings['of']['move']})"
            same = sum(other.split("#")[0] == name for other in names)
            names.append(f"{name}#{same + 1}" if same else name)
        return dict(zip(names, self._records, strict=True))

    @property
    def energy_estimate(self) -> Estimate:
        """Mean of the energy after each step since the equilibration, eV.

        Warns:
            where there is no such step, so that the mean is nan, or no move was accepted since.
        """
        found = self._blocking.estimate()
        attempted, accepted = (sum(getattr(r, name) for r in self._records) for name in ("attempted", "accepted"))
        if not found.n:
            warnings.warn(
                f"there is no average yet: {self.nsteps} steps were made, of which the first {self.equilibration} are "
                "equilibration. Run more steps, or give a smaller equilibration.",
                stacklevel=2,
            )
        elif attempted and not accepted:
            warnings.warn(
                f"none of {attempted} moves was accepted since the equilibration: the averages are those of a single "
                "structure. Give smaller steps, other moves or a higher temperature.",
                stacklevel=2,
            )
        return found

    def irun(self, steps: int) -> Iterator[bool]:
        """See `Driver.irun`."""
        with self.locked():
            self.begin()
            for last in self.iterate(steps):
                if last:
                    self.end()
                yield last

    def iterate(self, steps: int) -> Iterator[bool]:
        """As `irun`, without `begin` and `end`, which check all atoms."""
        return super().irun(steps)

    go_on = renamed_method("go_on", "iterate")

    def step(self) -> None:
        """Try `moves_per_step` moves."""
        if self.energies.stale:
            self.refresh()
        for _ in range(self.moves_per_step):
            k = self._choose()
            self.energy = self.moves[k].attempt(self.context, self.energies, self.energy, self._records[k])

    def after_step(self) -> None:
        """Adapt step sizes, update statistics, check the energy, call observers, write the state file."""
        if self.nsteps <= self.equilibration:
            self._adapt()
        else:
            self._blocking.add(self.energy)
        if self.check_interval and self.nsteps % self.check_interval == 0:
            self.check_energy()
        self.call_observers()
        if self.restart is not None and self.nsteps % self.restart_interval == 0:
            self.save()

    def todict(self) -> dict[str, Any]:
        """Description of the run for the header of a trajectory."""
        return {"type": "monte-carlo", "mc-type": type(self).__name__, "temperature_K": self.temperature_K}

    def log_columns(self) -> list[tuple[str, str]]:
        """See `Driver.log_columns`."""
        attempted, accepted = (sum(getattr(r, name) for r in self._records) for name in ("attempted", "accepted"))
        volume = abs(np.linalg.det(self.atoms.cell.array))
        return [
            (f"{'Step':>12}", f"{self.nsteps:12d}"),
            (f"{'Energy[eV]':>18}", f"{self.energy:18.6f}"),
            (f"{'T[K]':>10}", f"{self.temperature_K:10.2f}"),
            (f"{'Atoms':>9}", f"{len(self.atoms):9d}"),
            (f"{'Volume[Å^3]':>14}", f"{volume:14.3f}"),
            (f"{'Accepted':>9}", f"{accepted / attempted if attempted else math.nan:9.4f}"),
        ]

    def log_weight(self, atoms: Atoms, energy: float) -> float:
        """Logarithm of the ensemble's probability of a structure with this energy, up to a constant."""
        found: dict[str, float] = {}
        for move in self.moves:
            found |= move.log_weight(atoms, self.temperature_K)
        return -energy / self.context.kT + sum(found.values())

    def _choose(self) -> int:
        if len(self.moves) == 1:
            return 0
        return bisect_right(self._cumulative, self.context.rng.random() * self._cumulative[-1])

    def _adapt(self) -> None:
        for move, record, window in zip(self.moves, self._records, self._windows, strict=True):
            attempted = record.attempted - window[0]
            if isinstance(move, Adaptive) and attempted >= ADAPT_EVERY:
                move.adapt((record.accepted - window[1]) / attempted)
                window[:] = record.attempted, record.accepted
        if self.nsteps == self.equilibration:
            self._begin_statistics()

    def _begin_statistics(self) -> None:
        self._records = [MoveRecord() for _ in self.moves]
        self._blocking = Blocking()

    def _describe(self) -> dict[str, Any]:
        return {
            "moves": [move.settings() for move in self.moves],
            "weights": self.weights,
            "temperature_K": self.temperature_K,
            "moves_per_step": self.moves_per_step,
            "equilibration": self.equilibration,
        }

    def _open_trajectory(self, trajectory: Any, append: bool, loginterval: int) -> None:
        self.trajectory = trajectory
        if trajectory is None:
            return
        if not hasattr(trajectory, "write") and not append:
            Path(trajectory).unlink(missing_ok=True)
        self.attach(self._write_image, loginterval)

    def _write_image(self) -> None:
        write_image(self.trajectory, self.atoms, self.energy, self.todict())
