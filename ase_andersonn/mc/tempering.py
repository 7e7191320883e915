"""Parallel tempering: simulations at several temperatures that exchange their structures.

    a = min(1, w_i(x_j) w_j(x_i) / (w_i(x_i) w_j(x_j))),    ln w_k(x) = -E(x) / kT_k + (terms of ensemble k)

which is exp((1/kT_i - 1/kT_j)(E_i - E_j)) if only the temperature differs. Swendsen and Wang, Phys. Rev.
Lett. 57, 2607 (1986); Earl and Deem, Phys. Chem. Chem. Phys. 7, 3910 (2005).
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np

from .driver import Driver
from .local_energy import LocalEnergies
from .metropolis import MetropolisMC
from .state_file import Arrays, StateFile, check_same, save
from .statistics import MoveRecord
from .validation import check_seed


class ParallelTempering(Driver):
    """Replica exchange between simulations at neighbouring temperatures.

    In one step every replica makes `exchange_interval` steps; then exchanges are attempted for the pairs (0, 1), (2,
    3), ... or, alternately, (1, 2), (3, 4), ... The contents of the replicas' `Atoms` are swapped, including
    calculators, in constant time. The atoms, observers, log and trajectory of replica k thus remain at its temperature.

    Args:
        replicas: simulations of the same system in the order of their temperatures, each with its own atoms.
            Calculators with `LocalEnergy` must not be shared.
        exchange_interval: steps of a replica between two attempts.
        seed: seed of the exchanges; each replica has its own seed. None draws one.
        restart: a state file of all replicas, as for `MetropolisMC`; the replicas must not have a `restart`.
        restart_interval: steps between two writings of the file.
        logfile: a path, "-" for the screen, or an open file.
        loginterval: steps between two lines of the log.

    Attributes:
        exchanges: `MoveRecord` of the exchanges between replicas k and k + 1.
        walkers: replica k has the structure that started in replica walkers[k].

    Raises:
        ValueError: for fewer than two replicas, replicas of different systems, or shared atoms.
        InUseError: if another simulation uses the state file; the message names its process.
    """

    def __init__(
        self,
        replicas: Sequence[MetropolisMC],
        *,
        exchange_interval: int = 10,
        seed: int | None = None,
        restart: str | Path | None = None,
        restart_interval: int = 100,
        logfile: IO[str] | str | Path | None = None,
        loginterval: int = 1,
    ) -> None:
        self.replicas = list(replicas)
        _check_replicas(self.replicas)
        if exchange_interval < 1 or restart_interval < 1:
            raise ValueError(
                f"exchange_interval is {exchange_interval} and restart_interval {restart_interval}; both are 1 or more."
            )
        super().__init__(logfile, loginterval)
        self.exchange_interval = exchange_interval
        self.restart, self.restart_interval = None if restart is None else Path(restart), restart_interval
        sequence = np.random.SeedSequence(check_seed(seed))
        self.seed = sequence.entropy
        self.rng = np.random.Generator(np.random.PCG64(sequence))
        self.exchanges = [MoveRecord() for _ in self.replicas[1:]]
        self.walkers = list(range(len(self.replicas)))
        self._settings = {"replicas": len(self.replicas), "exchange_interval": exchange_interval}
        self.state_file = None if self.restart is None else StateFile(self.restart)
        saved = None if self.state_file is None else self.state_file.read()
        if saved is not None:
            self._take(*saved, str(self.restart))

    def irun(self, steps: int) -> Iterator[bool]:
        """See `Driver.irun`."""
        with nullcontext() if self.state_file is None else self.state_file.locked():
            for replica in self.replicas:
                replica.begin()
            for last in super().irun(steps):
                if last:
                    for replica in self.replicas:
                        replica.end()
                yield last

    def step(self) -> None:
        """Run every replica, then attempt the exchanges."""
        for replica in self.replicas:
            for _ in replica.iterate(self.exchange_interval):
                pass
        for k in range(self.nsteps % 2, len(self.replicas) - 1, 2):
            self._try(k)

    def after_step(self) -> None:
        """Call observers, then write the state file."""
        self.call_observers()
        if self.restart is not None and self.nsteps % self.restart_interval == 0:
            self.save()

    def save(self, path: str | Path | None = None) -> None:
        """Write the state file.

        Raises:
            ValueError: if neither a path is given nor `restart` was.
            InUseError: if the file of `restart` is to be written and another simulation uses it.
        """
        save(self.state_file, path, self._state, type(self).__name__)

    def _state(self) -> tuple[Arrays, dict[str, Any]]:
        arrays: Arrays = {}
        states: list[dict[str, Any]] = []
        for k, replica in enumerate(self.replicas):
            own, state = replica.get_state()
            arrays |= {f"{k}/{name}": values for name, values in own.items()}
            states.append(state)
        state = {
            "settings": self._settings,
            "nsteps": self.nsteps,
            "rng": self.rng.bit_generator.state,
            "seed": self.seed,
            "exchanges": [asdict(record) for record in self.exchanges],
            "walkers": self.walkers,
            "replicas": states,
        }
        return arrays, state

    def log_columns(self) -> list[tuple[str, str]]:
        """See `Driver.log_columns`."""
        columns = [(f"{'Step':>12}", f"{self.nsteps:12d}")]
        columns += [(f"{f'E({r.temperature_K:g} K)[eV]':>18}", f"{r.energy:18.6f}") for r in self.replicas]
        return columns + [(f"{f'{k}<->{k + 1}':>9}", f"{r.acceptance:9.4f}") for k, r in enumerate(self.exchanges)]

    def _try(self, k: int) -> None:
        a, b = self.replicas[k], self.replicas[k + 1]
        stay = a.log_weight(a.atoms, a.energy) + b.log_weight(b.atoms, b.energy)
        swap = a.log_weight(b.atoms, b.energy) + b.log_weight(a.atoms, a.energy)
        self.exchanges[k].attempted += 1
        if -self.rng.standard_exponential() <= swap - stay:
            _exchange(a, b)
            self.exchanges[k].accepted += 1
            self.walkers[k], self.walkers[k + 1] = self.walkers[k + 1], self.walkers[k]

    def _take(self, arrays: Arrays, state: dict[str, Any], path: str) -> None:
        check_same(path, state["settings"], self._settings)
        parts: list[Arrays] = [{} for _ in self.replicas]
        for name, values in arrays.items():
            number, _, own = name.partition("/")
            parts[int(number)][own] = values
        together = list(zip(self.replicas, parts, state["replicas"], strict=True))
        for k, (replica, part, other) in enumerate(together):
            replica.check_state(part, other, f"{path} (replica {k})")
        with ExitStack() as replicas_restored:
            for replica in self.replicas:
                replicas_restored.enter_context(replica.restored_on_error())
            for k, (replica, part, other) in enumerate(together):
                replica.set_state(part, other, f"{path} (replica {k})")
        self.nsteps, self.seed, self.walkers = state["nsteps"], state["seed"], state["walkers"]
        self.rng.bit_generator.state = state["rng"]
        self.exchanges = [MoveRecord(**record) for record in state["exchanges"]]


def _exchange(a: MetropolisMC, b: MetropolisMC) -> None:
    """Swap the contents of two replicas' `Atoms`, with everything that depends on them."""
    one, two = a.atoms, b.atoms
    one.arrays, two.arrays = two.arrays, one.arrays
    cell = one.cell.array.copy()
    one.cell[:] = two.cell.array
    two.cell[:] = cell
    constraints = one.constraints
    one.set_constraint(two.constraints)
    two.set_constraint(constraints)
    one.calc, two.calc = two.calc, one.calc
    a.energy, b.energy = b.energy, a.energy
    a.energies.stale, b.energies.stale = b.energies.stale, a.energies.stale
    a.context.clear()
    b.context.clear()


def _check_replicas(replicas: list[MetropolisMC]) -> None:
    if len(replicas) < 2:
        raise ValueError(f"{len(replicas)} replica(s) given; parallel tempering needs at least two.")
    if len({id(replica.atoms) for replica in replicas}) < len(replicas):
        raise ValueError("two replicas share one Atoms object; give each a copy (atoms.copy()) with a calculator.")
    if any(replica.restart is not None for replica in replicas):
        raise ValueError("a replica has its own restart; give restart to ParallelTempering, which saves all at once.")
    local = [replica.atoms.calc for replica in replicas if isinstance(replica.energies, LocalEnergies)]
    if len(local) not in (0, len(replicas)):
        raise ValueError("some replicas use local energies and others do not; give all the same kind of calculator.")
    if len({id(calc) for calc in local}) < len(local):
        raise ValueError("two replicas share one calculator, which remembers one structure; give each its own.")
    for k, other in enumerate(replicas[1:], start=1):
        if difference := _difference(replicas[0], other):
            raise ValueError(
                f"replicas 0 and {k} have different {difference}, so structures cannot be exchanged. "
                "Build all replicas from the same atoms and moves."
            )


def _difference(a: MetropolisMC, b: MetropolisMC) -> str | None:
    """Name of a difference that excludes exchanges between two replicas; None if there is none."""
    one, two = a.atoms, b.atoms
    changes, others = ({change for move in replica.moves for change in move.changes} for replica in (a, b))
    checks = {
        "kinds of moves": changes == others,
        "chemical potentials and pressures": set(a.fields) == set(b.fields),
        "pbc": np.array_equal(one.pbc, two.pbc),
        "cells": "cell" in changes or np.allclose(one.cell.array, two.cell.array),
        "arrays": set(one.arrays) == set(two.arrays),
        "numbers of atoms": "count" in changes or len(one) == len(two),
        "compositions": a.context.composition_varies or np.array_equal(np.sort(one.numbers), np.sort(two.numbers)),
        "constraints": "positions" not in changes or _same_fixed(a, b),
    }
    return next((name for name, same in checks.items() if not same), None)


def _same_fixed(a: MetropolisMC, b: MetropolisMC) -> bool:
    """Whether the same coordinates are fixed at the same values."""
    places = [
        np.zeros(0) if replica.context.frozen is None else replica.atoms.positions[replica.context.frozen]
        for replica in (a, b)
    ]
    return places[0].shape == places[1].shape and np.allclose(places[0], places[1])
