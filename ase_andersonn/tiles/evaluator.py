"""Evaluator of the tiled energy: memory is bounded by a batch of tiles, local changes cost a few tiles.

    E = Σ_tiles Σ_{i in focus} e_i(tile)

A tile contains the atoms of its focus box and, as context, all atoms within `context` of the box on every axis.
Features are solved for atoms within `context − receptive_field`, whose environment is completely in the tile
(`EnergyModel.receptive_field` is one or two cutoffs). The difference to the untiled energy falls at least by the
contraction factor γ with each further cutoff; see `accuracy`. Source: Mills et al., Chem. Sci. 2019, 10, 4129.
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

MAX_STATE_ATOMS = 5_000_000
"""Largest structure whose state is kept for incremental updates, unless trial energies are asked for."""
MAX_CHANGED_SHARE = 0.9
"""Largest share of changed tiles for an incremental update; above it all tiles are evaluated."""
SPARE_PER_BIN = 4
"""Least number of free places per bin in a state for incremental updates."""
PROGRESS_DELAY = 3.0
"""Seconds until the progress bar is shown."""


class TiledEvaluator(Evaluator):
    """Energies, forces and stresses of an equilibrium model, summed over tiles.

    Forces and stress are the exact derivatives of the sum at fixed membership of the tiles. When an atom enters or
    leaves a tile, the energy is discontinuous by about its difference to the untiled energy. Several periodic images of
    an atom may be in one tile; each is solved for separately.

    Args:
        model: the model, on the settings' device and in their precision.
        settings: see `AndersoNN`; None for the model's own device and precision.
        focus: width of the focus boxes, Å; None to choose it for the first structure.
        context: width of the buffer around the focus, Å; None to choose it for the first structure.
        max_memory: bytes that an evaluation may take beside the structure; None for half of what is available.
        work: file with the partial sums of an evaluation, from which a later call resumes.
        progress: whether to show a progress bar; None for long evaluations on a terminal.
        client: a Dask client, the address of a scheduler, or "local" for one process per core of this machine: full
            evaluations are then distributed over its workers; see `distributed`. Incremental updates run in the main
            process.

    Attributes:
        diagnostics: `tiles`, `batches`, atoms encoded (`rows`) and solved for (`pairs`), applications of the cell and
            its transpose (`evaluations`, summed over batches), largest residuals (`residual`, `adjoint_residual`), the
            largest estimated energy error of a tile (`energy_error`, eV/atom), `focus`, `context`, how the functions
            run (`backend`), whether only changed tiles were evaluated (`incremental`), `seconds`.

    Raises:
        ValueError: for a context below the model's receptive field, and for lengths that are not positive.
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
        """See `Evaluator.calculate`. If only the energy is asked for, it is updated incrementally."""
        self._check(atoms)
        if self._proposed:
            self.commit(False)
        if not (forces or stress) and self._state is not None and self._updated(atoms) is not None:
            energy = self._state.energy
            return {"energy": energy, "free_energy": energy, "energies": self._state.energies.copy()}
        sums, grid = self._evaluate(atoms, forces=forces, stress=stress)
        return self._results(sums, grid)

    def trial_energy(self, atoms: Atoms, changed: NDArray[np.int64]) -> float:
        """See `Evaluator.trial_energy`: tiles that contain a changed atom before or after the change are evaluated.

        If `changed` lists all atoms, the change is found by comparison; cell and number of atoms may differ too.
        """
        if self._proposed:
            raise RuntimeError("the last trial energy was not committed; call commit(True) or commit(False) first.")
        state = self._state
        change = None
        if state is not None and len(changed) < len(atoms) == len(state.positions):
            change = Change(changed, atoms.positions[changed], atoms.numbers[changed])
            if not np.isfinite(change.positions).all():
                check_atoms(atoms, sites=False)  # raises, naming the atoms
        else:
            self._check(atoms)
        undo = None if state is None else self._updated(atoms, change)
        if undo is None:
            self._evaluate(atoms, keep_state=True)
        self._pending = state if undo is None else undo
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
        """See `Evaluator.reset`. Chosen lengths are kept for similar structures."""
        self.diagnostics = {}
        self._state = self._pending = None
        self._proposed = False

    def _check(self, atoms: Atoms) -> None:
        check_atoms(atoms, sites=False)
        self.model.species(torch.from_numpy(np.unique(atoms.numbers)).to(self.settings.device))

    def _lengths(self, atoms: Atoms) -> tuple[float, float]:
        """Focus and context, Å; chosen lengths are kept for similar structures, also after `reset`."""
        given = self.tiles
        if given.focus is not None and given.context is not None:
            return given.focus, given.context
        if self._chosen is None or self._chosen_for is None or not self._chosen_for.matches(atoms):
            self._chosen = choose_tiles(self.model, atoms, given.max_memory, given)
            self._chosen_for = ChosenFor.of(atoms)
        assert self._chosen.focus is not None
        assert self._chosen.context is not None
        return self._chosen.focus, self._chosen.context

    def _memory(self, n_atoms: int = 0, *, forces: bool = False, stress: bool = False) -> float:
        """Bytes for a batch, after subtracting the results and lists of `n_atoms` atoms."""
        device = self.settings.device
        if n_atoms or not self._allowed:  # the query takes longer than some moves
            self._allowed = self.tiles.max_memory or available_memory(device) // 2
        allowed = self._allowed
        kept = n_atoms * atom_bytes(forces=forces, stress=stress) if device.type == "cpu" else 0
        if kept >= allowed:
            raise ValueError(
                f"results and lists of {n_atoms} atoms take {kept / 2**20:,.0f} MiB, but max_memory is "
                f"{allowed / 2**20:,.0f} MiB; increase max_memory."
            )
        return float(allowed - kept)

    def _evaluate(
        self, atoms: Atoms, *, forces: bool = False, stress: bool = False, keep_state: bool = False
    ) -> tuple[PartialSums, TileGrid3D]:
        """Evaluate all tiles."""
        begun = time.perf_counter()
        self._full.statistics = Statistics()
        focus, context = self._lengths(atoms)
        keep_state = keep_state or len(atoms) <= MAX_STATE_ATOMS
        grid = cut(atoms.positions, atoms.cell.array, atoms.pbc, focus, context)
        bins = CellList(grid, atoms.positions, SPARE_PER_BIN if keep_state else 0)
        state = TiledState(grid, bins, atoms, focus, context) if keep_state else None
        tiles = np.arange(grid.n_tiles)
        tiles = tiles[~empty_tiles(grid, bins)]
        settings = (self.settings.dtype, self.settings.tol, focus, context, forces, stress)
        work = ResumeFile(self.work, "" if self.work is None else fingerprint(atoms, self.model, settings))
        with work.locked():
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
            complete = True  # False while a batch is added: saved then, its tiles would be added twice
            try:
                with self._bar(len(tiles), sums.done) as bar:
                    for batch in batches:
                        complete = False
                        add(sums, batch, left)
                        complete = True
                        bar.update(batch.last - batch.first)
                        work.save(sums)
            except BaseException:
                if sums.done and complete:
                    work.save(sums, now=True)
                raise
            work.remove()
        if state is not None:
            state.set_energies(sums.tile_energies, sums.energies)
        self._state = state
        self._describe(self._full, begun, focus, context)
        return sums, grid

    def _bar(self, total: int, done: int) -> Any:
        disable = None if self.progress is None else not self.progress
        return tqdm(total=total, initial=done, unit="tile", disable=disable, delay=PROGRESS_DELAY, leave=False)

    def _updated(self, atoms: Atoms, change: Change | None = None) -> Undo | TiledState | None:
        """Update the state incrementally; returns the previous state, or how to undo the change.

        None if all tiles have to be evaluated: cell or boundary conditions changed, an atom left the grid, or most
        tiles changed.
        """
        state, begun = self._state, time.perf_counter()
        assert state is not None
        change = change or state.difference(atoms)
        if change is None:
            return self._resized(atoms, state)
        if len(change.atoms) > MAX_CHANGED_SHARE * len(state.positions) or state.exceeds_grid(change.positions):
            return None
        tiles, undo = state.apply(change)
        try:
            if self._worthwhile(state, tiles):
                self._update(state, tiles, undo)
                self._describe(self._stream, begun, state.focus, state.context, incremental=True)
                return undo
        except BaseException:
            state.rollback(undo)
            raise
        state.rollback(undo)
        return None

    def _resized(self, atoms: Atoms, state: TiledState) -> TiledState | None:
        """Update the state for inserted or deleted atoms; returns the previous state."""
        begun, found = time.perf_counter(), state.resized(atoms)
        if found is None or not self._worthwhile(*found):
            return None
        now, tiles = found
        self._update(now, tiles, Undo(Change(np.empty(0, np.int64), np.empty((0, 3)), np.empty(0, np.int64))))
        self._state = now
        self._describe(self._stream, begun, now.focus, now.context, incremental=True)
        return state

    def _worthwhile(self, state: TiledState, tiles: Ints) -> bool:
        return len(tiles) <= max(MAX_CHANGED_SHARE * state.grid.n_tiles, 1)

    def _update(self, state: TiledState, tiles: Ints, undo: Undo) -> None:
        """Recompute the energies of some tiles of the state."""
        self._stream.statistics = Statistics()
        empty = state.empty(tiles)
        flat = state.grid.flat(tiles)
        none = np.empty(0, np.int64)
        if empty.any():
            state.update(flat[empty], np.zeros(int(empty.sum())), none, np.empty(0), undo)
        tiles, flat = tiles[~empty], flat[~empty]
        structure = state.positions, state.numbers
        batches = list(
            self._stream.solve(
                state.grid, state.bins, structure, tiles, state.context, memory=self._memory(), size=len(tiles)
            )
        )
        if batches:
            energies = np.concatenate([batch.solved.tile_energies for batch in batches])
            state.update(flat, energies, *solved_atoms(batches), undo)

    def _results(self, sums: PartialSums, grid: TileGrid3D) -> dict[str, Any]:
        """Results by the names of ASE's properties."""
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
        rest = {"focus": focus, "context": context, "incremental": incremental, "device": str(self.settings.device)}
        self.diagnostics = TiledDiagnostics({**found, **rest, "seconds": seconds})

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_full": self._stream, "_state": None, "_pending": None, "_proposed": False}


class TiledDiagnostics(dict[str, Any]):
    """Diagnostics that say why an out-of-distribution score is not among them."""

    def __missing__(self, key: str) -> Any:
        if key == "extrapolation":
            raise KeyError("extrapolation is not computed with tiles; evaluate the structure with tiles=None for it")
        raise KeyError(key)


def empty_tiles(grid: TileGrid3D, bins: CellList) -> NDArray[np.bool_]:
    """Whether the focus of each tile is empty, bool [n_tiles]."""
    (a, b, c), (p, q, r) = grid.shape, grid.split
    empty: NDArray[np.bool_] = (bins.count.reshape(a, p, b, q, c, r).sum((1, 3, 5)) == 0).ravel()
    return empty


def add(sums: PartialSums, batch: Batch, tiles: Ints) -> None:
    """Add the results of a batch of tiles to the sums."""
    solved, cluster = batch.solved, batch.cluster
    sums.tile_energies[tiles[batch.first : batch.last]] = solved.tile_energies
    sums.energies[solved.atom] = solved.energies
    if sums.forces is not None and solved.forces is not None:
        np.add.at(sums.forces, cluster.atom, solved.forces)
    if sums.virials is not None and solved.virials is not None:
        np.add.at(sums.virials, cluster.atom[: cluster.n_rows], solved.virials)
    sums.done += batch.last - batch.first
    sums.batch = batch.size
