"""Solver of tiles in batches whose size is limited by memory."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from ase.calculators.calculator import CalculationFailed

from ase_andersonn.backends import CompileMode, exact_matmul
from ase_andersonn.engine.compile_choice import CompileChoice
from ase_andersonn.engine.compiled import compiled_model
from ase_andersonn.engine.equilibrium import SolveOptions
from ase_andersonn.engine.native import library
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.potentials.interface import ConvergenceError, Settings, warn_of_error
from ase_andersonn.solvers.registry import AFTER_PICARD, solver_named

from .cluster import Cluster, gather
from .grid import CellList, Floats, Ints, TileGrid3D
from .memory import row_bytes, tape_bytes
from .tile_solver import Solved, solve_tiles

MAX_SOLVED_ATOMS = {"cpu": 2048, "cuda": 1 << 19}
"""Largest number of solved atoms in a batch; larger batches are not faster."""
TAPE_SHARE = 0.3
"""Largest share of the memory in which derivatives of the encoding are kept."""
FIRST_NEIGHBORS = 32
"""Number of neighbours of an atom assumed for the first batch."""


class Batch(NamedTuple):
    """Result of tiles that were solved together.

    Attributes:
        first: index of the first tile in the list of tiles.
        last: index after the last tile.
        cluster: the tiles' atoms.
        solved: energies, forces and virials of the cluster.
        size: number of tiles of the next batch.
    """

    first: int
    last: int
    cluster: Cluster
    solved: Solved
    size: int


@dataclass
class Statistics:
    """Counts, worst residuals and times of all batches of an evaluation."""

    tiles: int = 0
    batches: int = 0
    rows: int = 0
    pairs: int = 0
    evaluations: dict[str, int] = field(default_factory=lambda: {"cell": 0, "transposed": 0})
    residual: float = 0.0
    adjoint_residual: float = 0.0
    energy_error: float = 0.0
    backend: str = ""
    seconds: dict[str, float] = field(default_factory=lambda: {"gather": 0.0, "solve": 0.0})

    def add(self, cluster: Cluster, solved: Solved) -> None:
        found = solved.found
        self.tiles += cluster.n_tiles
        self.batches += 1
        self.rows += cluster.n_rows
        self.pairs += cluster.n_pairs
        self.evaluations["cell"] += found.evaluations[0]
        self.evaluations["transposed"] += found.evaluations[1]
        self.residual = max(self.residual, found.residual)
        self.adjoint_residual = max(self.adjoint_residual, found.adjoint_residual)
        self.energy_error = max(self.energy_error, found.energy_error)
        self.backend = found.backend


@dataclass(frozen=True)
class Job:
    """Settings for solving one cluster.

    Attributes:
        settings: see `AndersoNN`.
        compile: as in `backends.compile_function`.
        forces: whether forces are wanted.
        keep: whether to keep intermediate results for the derivatives rather than recompute them.
    """

    settings: Settings
    compile: CompileMode
    forces: bool
    keep: bool

    def run(self, model: EnergyModel, cluster: Cluster, numbers: Any) -> Solved:
        """Solve the tiles of a cluster whose members have these atomic numbers."""
        device, mode = self.settings.device, self.compile
        if mode == "native" and self.settings.compile == "auto" and not library.can_use():
            mode = False  # on another machine, without a compiler
        with exact_matmul():
            return solve_tiles(
                model,
                compiled_model(model, device, mode),
                cluster,
                numbers,
                SolveOptions(
                    self.settings.tol, solver_named(self.settings.solver), picard=self.settings.solver in AFTER_PICARD
                ),
                forces=self.forces,
                keep=self.keep,
                dtype=self.settings.dtype,
                device=device,
            )


class TileBatchSolver:
    """Solves tiles of structures with one model.

    Args:
        model: an equilibrium model, on the settings' device and in their precision.
        settings: see `AndersoNN`.
    """

    def __init__(self, model: EnergyModel, settings: Settings) -> None:
        self.model, self.settings = model, settings
        self.statistics = Statistics()
        self.n_neighbors = FIRST_NEIGHBORS
        self._worked, self._compile_choice = 0.0, CompileChoice(model, settings)

    def solve(
        self,
        grid: TileGrid3D,
        bins: CellList,
        structure: tuple[Floats, Any],
        tiles: Ints,
        context: float,
        *,
        memory: float,
        forces: bool = False,
        size: int = 0,
    ) -> Iterator[Batch]:
        """Solve a list of tiles and yield its batches in order.

        Args:
            grid: how space is cut.
            bins: the atoms' bins.
            structure: positions [n_atoms, 3], Å, and atomic numbers [n_atoms].
            tiles: indices along each axis [n_tiles, 3]; none of the tiles is empty.
            context: Å.
            memory: bytes that a batch may take.
            forces: whether forces are wanted.
            size: number of tiles of the first batch; 0 to determine it.

        Raises:
            ValueError: where one tile does not fit into the memory.
            ConvergenceError: if a fixed point is not reached.
        """
        for first, cluster, fitting in self._clusters(grid, bins, structure[0], tiles, context, memory, forces, size):
            solved = self._solve(cluster, structure[1][cluster.atom], forces, memory)
            self._take(cluster, solved)
            yield Batch(first, first + cluster.n_tiles, cluster, solved, fitting)

    def _clusters(
        self,
        grid: TileGrid3D,
        bins: CellList,
        positions: Floats,
        tiles: Ints,
        context: float,
        memory: float,
        forces: bool,
        size: int,
    ) -> Iterator[tuple[int, Cluster, int]]:
        """Clusters of as many tiles as fit: index of the first tile, cluster, and number of tiles of the next one."""
        first, size = 0, size or 1
        while first < len(tiles):
            begun = time.perf_counter()
            chosen = tiles[first : first + size]
            cluster = gather(grid, bins, positions, chosen, context, self.model.cutoff, self.model.receptive_field)
            self.statistics.seconds["gather"] += time.perf_counter() - begun
            fitting = self._fitting(cluster, memory, forces)
            size = max(1, int(fitting))
            if len(chosen) > 1 and fitting < 0.8 * len(chosen):
                continue
            if fitting < 0.5:
                raise ValueError(self._too_large(cluster, memory, forces))
            yield first, cluster, size
            first += len(chosen)

    def _fitting(self, cluster: Cluster, memory: float, forces: bool) -> float:
        """Number of tiles, of the same size as those of a cluster, that fit into one batch."""
        max_solved = MAX_SOLVED_ATOMS["cpu" if self.settings.device.type == "cpu" else "cuda"]
        solved = max(1, cluster.n_pairs) / cluster.n_tiles
        encoded = max(1, cluster.n_pairs, cluster.n_rows) / cluster.n_tiles
        by_memory = memory / (encoded * row_bytes(self.model, self.n_neighbors, forces=forces))
        return min(max(max_solved / solved, 1.0), by_memory)

    def _too_large(self, cluster: Cluster, memory: float, forces: bool) -> str:
        encoded = max(cluster.n_pairs, cluster.n_rows)
        needed = encoded * row_bytes(self.model, self.n_neighbors, forces=forces)
        return (
            f"one tile contains the neighbourhoods of {encoded} atoms, which takes about {needed / 2**20:,.0f} MiB; a "
            f"batch may take {memory / 2**20:,.0f} MiB. Choose a smaller focus or context, or allow more memory with "
            "max_memory."
        )

    def _solve(self, cluster: Cluster, numbers: Any, forces: bool, memory: float) -> Solved:
        begun = time.perf_counter()
        solved = self._job(cluster, forces, memory).run(self.model, cluster, numbers)
        spent = time.perf_counter() - begun
        self._worked += spent
        self.statistics.seconds["solve"] += spent
        return solved

    def _job(self, cluster: Cluster, forces: bool, memory: float) -> Job:
        tape = cluster.n_rows * tape_bytes(self.model, self.n_neighbors)
        return Job(self.settings, self._compile_choice.mode(self._worked), forces, tape < TAPE_SHARE * memory)

    def _take(self, cluster: Cluster, solved: Solved) -> None:
        """Update the statistics; raise if the result is not converged or not finite."""
        self.n_neighbors = max(self.n_neighbors, solved.n_neighbors)
        self.statistics.add(cluster, solved)
        found = solved.found
        if found.failed:
            raise ConvergenceError(
                f"the fixed-point solve of {found.failed} tiles did not converge: residuals {found.residual:.1e} "
                f"(features) and {found.adjoint_residual:.1e} (adjoint), allowed {self.settings.tol**0.5:.1e}. Use a "
                "larger tol, or dtype='float64' for a tol below 1e-12."
            )
        if not np.isfinite(solved.tile_energies).all():
            raise CalculationFailed(
                "the energy is not finite; check the structure for atoms much too close to each other."
            )
        warn_of_error(found.energy_error, self.settings.tol)


def solved_atoms(batches: Sequence[Batch]) -> tuple[Ints, Floats]:
    """The focus atoms of all batches and their energies."""
    atoms = np.concatenate([batch.solved.atom for batch in batches])
    return atoms, np.concatenate([batch.solved.energies for batch in batches])
