"""The tiled energy: memory bounded by a batch of tiles, and changes that cost what they touch.

    E = Σ_tiles Σ_{i in focus} e_i(tile)

A tile holds the atoms of its focus box and, as context, all atoms within `context` of the box on every axis; features
are solved for those within `context − receptive_field`, of which it holds all that enters their cells
(`EnergyModel.receptive_field`: one cutoff, or two). The difference from the untiled energy falls by γ with every cutoff
more, or faster; see `accuracy`. Source: Mills et al., Chem. Sci. 2019, 10, 4129.
"""

import math
import time
from collections.abc import Collection
from os import PathLike
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray
from tqdm import tqdm

from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.potentials.interface import Evaluator, Settings
from ase_andersonn.structures.convert import check_atoms

from .accuracy import choose_tiles
from .batches import Batch, Statistics, TileBatchSolver, solved_atoms
from .grid import CellList, Ints, TileGrid3D, cut
from .memory import atom_bytes, available_memory
from .resume_file import PartialSums, ResumeFile, fingerprint
from .settings import ChosenFor, Tiles
from .tiled_state import Change, TiledState, Undo

HELD_ATOMS = 5_000_000
"""Larger structures are not kept for changes to be followed, unless changes are proposed."""
WORTHWHILE = 0.9
"""Share of the tiles up to which a change is followed; beyond, everything is evaluated."""
SPARE = 4
"""Free places in each bin, at least, of a structure that changes are followed in."""
DELAY = 3.0
"""Seconds before progress is shown."""


class TiledEvaluator(Evaluator):
    """Energies, forces and stresses of the tiled sum of an equilibrium model.

    Forces and stress are the exact derivatives of the sum with the tiles' members as they are; where an atom enters or
    leaves a tile, the energy makes a step of about the size of the difference from the untiled energy. An atom may be
    in a tile several times, as different periodic images; each is solved for by itself.

    Args:
        model: the model, on the settings' device and in their precision.
        settings: see `AndersoNN`; None for the model's own device and precision.
        focus: width of the focus boxes, Å; None to choose it at the first structure.
        context: width of the surroundings, Å; None to choose it at the first structure.
        max_memory: bytes that an evaluation may take beside the structure; None for half of what is available.
        work: file that keeps what is finished of an evaluation, so that a later call goes on from there.
        progress: whether to show it; None for long evaluations on a terminal.
        client: a Dask client, the address of a scheduler, or "local" for one process a core of this machine: full
            evaluations are then spread over its workers; see `distributed`. Changes are followed in this process.

    Attributes:
        diagnostics: `tiles`, `batches`, atoms encoded (`rows`) and solved for (`pairs`), applications of the cell and
            its transpose (`evaluations`, summed over batches), largest residuals (`residual`, `adjoint_residual`), the
            largest estimated energy error of a tile (`energy_error`, eV/atom), `focus`, `context`, how the functions
            run (`backend`), whether only a change was evaluated (`incremental`), `seconds`.

    Raises:
        ValueError: for a context smaller than the model's reach, and lengths that are not positive.
    """

    def __init__(
        self,
        model: EnergyModel,
        settings: Settings | None = None,
        *,
        focus: float | None = None,
        context: float | None = None,
        max_memory: int | None = None,
        work: str | PathLike[str] | None = None,
        progress: bool | None = None,
        client: Any = None,
    ) -> None:
        parameter = next(model.parameters())
        self.tiles = Tiles(focus, context, max_memory)
        self.tiles.check(model.receptive_field)
        self.model, self.settings = model, settings or Settings(parameter.device, parameter.dtype)
        self.work, self.progress = work, progress
        self.diagnostics: dict[str, Any] = {}
        self._stream = self._full = TileBatchSolver(model, self.settings)
        if client is not None:
            from .distributed import RemoteStream  # the extra `distributed`

            self._full = RemoteStream(model, self.settings, client)
        self._chosen: Tiles | None = None
        self._chosen_for: ChosenFor | None = None
        self._state: TiledState | None = None
        self._pending: Undo | TiledState | None = None
        self._proposed = False
        self._allowed = 0

    def calculate(self, atoms: Atoms, *, forces: bool, stress: bool, changes: Collection[str]) -> dict[str, Any]:  # noqa: ARG002 (found here)
        """See `Evaluator.calculate`. Where only the energy is asked for, changes since the last call are followed."""
        self._check(atoms)
        if self._proposed:
            self.commit(False)
        if not (forces or stress) and self._state is not None and self._followed(atoms) is not None:
            energy = self._state.energy
            return {"energy": energy, "free_energy": energy, "energies": self._state.energies.copy()}
        sums, grid = self._evaluate(atoms, forces=forces, stress=stress)
        return self._results(sums, grid)

    def trial_energy(self, atoms: Atoms, changed: NDArray[np.int64]) -> float:
        """See `Evaluator.trial_energy`: the tiles that hold a touched atom, before or after, are evaluated.

        Where `changed` lists all atoms, what changed is found by comparison; cell and number of atoms may be among it.
        """
        if self._proposed:
            raise RuntimeError("a proposed structure has not been settled; call settle(True) or settle(False) first.")
        held = self._state
        change = None
        if held is not None and len(changed) < len(atoms) == len(held.positions):
            change = Change(changed, atoms.positions[changed], atoms.numbers[changed])
            if not np.isfinite(change.positions).all():
                check_atoms(atoms, sites=False)  # raises, naming the atoms
        else:
            self._check(atoms)
        undo = None if held is None else self._followed(atoms, change)
        if undo is None:
            self._evaluate(atoms, hold=True)
        self._pending = held if undo is None else undo
        self._proposed = True
        assert self._state is not None
        return self._state.energy

    def commit(self, accepted: bool) -> None:
        """See `Evaluator.commit`."""
        pending, self._pending, self._proposed = self._pending, None, False
        if accepted:
            return
        if isinstance(pending, Undo):
            assert self._state is not None
            self._state.rollback(pending)
        else:
            self._state = pending

    def reset(self) -> None:
        """See `Evaluator.reset`. Lengths that were chosen stay for structures that are alike."""
        self.diagnostics = {}
        self._state = self._pending = None
        self._proposed = False

    def _check(self, atoms: Atoms) -> None:
        check_atoms(atoms, sites=False)
        self.model.species(torch.from_numpy(np.unique(atoms.numbers)).to(self.settings.device))

    def _lengths(self, atoms: Atoms) -> tuple[float, float]:
        """Focus and context; those chosen stay for structures that are alike, also when all else is forgotten."""
        given = self.tiles
        if given.focus is not None and given.context is not None:
            return given.focus, given.context
        if self._chosen is None or self._chosen_for is None or not self._chosen_for.holds(atoms):
            self._chosen = choose_tiles(self.model, atoms, given.max_memory, given)
            self._chosen_for = ChosenFor.of(atoms)
        assert self._chosen.focus is not None
        assert self._chosen.context is not None
        return self._chosen.focus, self._chosen.context

    def _memory(self, n_atoms: int = 0, *, forces: bool = False, stress: bool = False) -> float:
        """Bytes for a batch, beside what is kept of `n_atoms` atoms."""
        device = self.settings.device
        if n_atoms or not self._allowed:  # to ask takes longer than some moves
            self._allowed = self.tiles.max_memory or available_memory(device) // 2
        allowed = self._allowed
        kept = n_atoms * atom_bytes(forces=forces, stress=stress) if device.type == "cpu" else 0
        if kept >= allowed:
            raise ValueError(
                f"results and lists of {n_atoms} atoms take {kept / 2**20:,.0f} MiB, max_memory is "
                f"{allowed / 2**20:,.0f} MiB; allow more."
            )
        return float(allowed - kept)

    def _evaluate(
        self, atoms: Atoms, *, forces: bool = False, stress: bool = False, hold: bool = False
    ) -> tuple[PartialSums, TileGrid3D]:
        """All tiles."""
        begun = time.perf_counter()
        self._full.statistics = Statistics()
        focus, context = self._lengths(atoms)
        hold = hold or len(atoms) <= HELD_ATOMS
        grid = cut(atoms.positions, atoms.cell.array, atoms.pbc, focus, context)
        bins = CellList(grid, atoms.positions, SPARE if hold else 0)
        held = TiledState(grid, bins, atoms, focus, context) if hold else None
        tiles = np.arange(grid.n_tiles)
        tiles = tiles[~empty_tiles(grid, bins)]
        settings = (self.settings.dtype, self.settings.tol, focus, context, forces, stress)
        work = ResumeFile(self.work, "" if self.work is None else fingerprint(atoms, self.model, settings))
        with work.held():
            sums = work.load() or PartialSums.empty(grid.n_tiles, len(atoms), forces=forces or stress, stress=stress)
            left = tiles[sums.done :]
            memory = self._memory(len(atoms), forces=forces or stress, stress=stress)
            batches = self._full.solve(
                grid,
                bins,
                (atoms.positions, atoms.numbers),
                grid.tile(left),
                context,
                memory=memory,
                forces=forces or stress,
                size=sums.batch,
            )
            whole = True  # not in the middle of a batch, which would be added once more
            try:
                with self._bar(len(tiles), sums.done) as bar:
                    for batch in batches:
                        whole = False
                        add(sums, batch, left)
                        whole = True
                        bar.update(batch.last - batch.first)
                        work.save(sums)
            except BaseException:
                if sums.done and whole:
                    work.save(sums, now=True)
                raise
            work.remove()
        if held is not None:
            held.set_energies(sums.tile_energies, sums.energies)
        self._state = held
        self._describe(self._full, begun, focus, context)
        return sums, grid

    def _bar(self, total: int, done: int) -> Any:
        disable = None if self.progress is None else not self.progress
        return tqdm(total=total, initial=done, unit="tile", disable=disable, delay=DELAY, leave=False)

    def _followed(self, atoms: Atoms, change: Change | None = None) -> Undo | TiledState | None:
        """Follow a change of the held structure; what to go back to, or None where it is evaluated as a new one.

        That is where cell or boundary conditions changed, where an atom left the grid, and where most tiles are
        concerned.
        """
        held, begun = self._state, time.perf_counter()
        assert held is not None
        change = change or held.difference(atoms)
        if change is None:
            return self._resized(atoms, held)
        if len(change.atoms) > WORTHWHILE * len(held.positions) or held.exceeds_grid(change.positions):
            return None
        tiles, undo = held.apply(change)
        try:
            if self._worthwhile(held, tiles):
                self._update(held, tiles, undo)
                self._describe(self._stream, begun, held.focus, held.context, incremental=True)
                return undo
        except BaseException:
            held.rollback(undo)
            raise
        held.rollback(undo)
        return None

    def _resized(self, atoms: Atoms, held: TiledState) -> TiledState | None:
        """Follow atoms that appeared or vanished; the structure before."""
        begun, found = time.perf_counter(), held.resized(atoms)
        if found is None or not self._worthwhile(*found):
            return None
        now, tiles = found
        self._update(now, tiles, Undo(Change(np.empty(0, np.int64), np.empty((0, 3)), np.empty(0, np.int64))))
        self._state = now
        self._describe(self._stream, begun, now.focus, now.context, incremental=True)
        return held

    def _worthwhile(self, held: TiledState, tiles: Ints) -> bool:
        return len(tiles) <= max(WORTHWHILE * held.grid.n_tiles, 1)

    def _update(self, held: TiledState, tiles: Ints, undo: Undo) -> None:
        """Find the energies of some tiles of the held structure anew."""
        self._stream.statistics = Statistics()
        empty = held.empty(tiles)
        flat = held.grid.flat(tiles)
        none = np.empty(0, np.int64)
        if empty.any():
            held.update(flat[empty], np.zeros(int(empty.sum())), none, np.empty(0), undo)
        tiles, flat = tiles[~empty], flat[~empty]
        structure = held.positions, held.numbers
        batches = list(
            self._stream.solve(
                held.grid, held.bins, structure, tiles, held.context, memory=self._memory(), size=len(tiles)
            )
        )
        if batches:
            energies = np.concatenate([batch.solved.tile_energies for batch in batches])
            held.update(flat, energies, *solved_atoms(batches), undo)

    def _results(self, sums: PartialSums, grid: TileGrid3D) -> dict[str, Any]:
        """ASE's results."""
        energy = math.fsum(sums.tile_energies)
        energies = sums.energies if self._state is None else sums.energies.copy()
        results = {"energy": energy, "free_energy": energy, "energies": energies}
        if sums.forces is not None:
            results["forces"] = sums.forces
        if sums.virials is not None:
            stresses = full_3x3_to_voigt_6_stress(sums.virials) / grid.volume
            results |= {"stresses": stresses, "stress": stresses.sum(0)}
        return results

    def _describe(
        self, stream: TileBatchSolver, begun: float, focus: float, context: float, *, incremental: bool = False
    ) -> None:
        found = vars(stream.statistics)
        seconds = {**found["seconds"], "all": time.perf_counter() - begun}
        self.diagnostics = {
            **found,
            "focus": focus,
            "context": context,
            "incremental": incremental,
            "device": str(self.settings.device),
            "seconds": seconds,
        }

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_full": self._stream, "_state": None, "_pending": None, "_proposed": False}


def empty_tiles(grid: TileGrid3D, bins: CellList) -> NDArray[np.bool_]:
    """Which tiles of a structure have no atom in their focus [n_tiles]."""
    (a, b, c), (p, q, r) = grid.shape, grid.split
    empty: NDArray[np.bool_] = (bins.count.reshape(a, p, b, q, c, r).sum((1, 3, 5)) == 0).ravel()
    return empty


def add(sums: PartialSums, batch: Batch, tiles: Ints) -> None:
    """Add what a batch of tiles found to the sums."""
    solved, cluster = batch.solved, batch.cluster
    sums.tile_energies[tiles[batch.first : batch.last]] = solved.tile_energies
    sums.energies[solved.atom] = solved.energies
    if sums.forces is not None and solved.forces is not None:
        np.add.at(sums.forces, cluster.atom, solved.forces)
    if sums.virials is not None and solved.virials is not None:
        np.add.at(sums.virials, cluster.atom[: cluster.n_rows], solved.virials)
    sums.done += batch.last - batch.first
    sums.batch = batch.size
