"""Energies of spin lattices as an ASE calculator and Monte Carlo want them: whole, or only what a move touches."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, PropertyNotImplementedError
from numpy.typing import NDArray

from ase_andersonn.potentials.interface import Evaluator, Settings

from .model import GridModel
from .spins import Sites, read_values
from .tile_energies import TileEnergies, patches, tile_energies
from .tile_index import TileIndex

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass
class Settled:
    """A lattice whose tiles are known.

    Attributes:
        digits: number of the value at each site, int8 [n_sites + 1]; the last one is what stands outside.
        states: what is kept of every tile, `TileEnergies.states`, [n_tiles + 1]; the last one means nothing.
        energy: eV.
    """

    sites: Sites
    index: TileIndex
    tiles: TileEnergies
    digits: NDArray[np.int8]
    states: NDArray[Any]
    energy: float


@dataclass(frozen=True)
class Trial:
    """New digits of some sites, and what they make of the tiles that hold them.

    Attributes:
        sites: [n], flat.
        digits: [n].
        holders: tiles, [n_holders]; of many independent moves [n_holders, n].
        states: of the holders.
        changes: of the energy, eV: one, or one a site.
    """

    sites: Ints
    digits: NDArray[np.int8]
    holders: Ints
    states: NDArray[Any]
    changes: Floats


class LatticeEvaluator(Evaluator):
    """Energies of spins on a lattice.

    `trial_energy` and `trial_energy_changes` evaluate the tiles that hold the touched sites and no others; their sum
    with the rest is the energy of the whole, exactly. The running energy is a sum of changes in float64: `calculate`
    makes it anew.

    There are no forces: the sites are where they are.

    Args:
        model: on the settings' device and in their precision.
        settings: see `AndersoNN`.

    Attributes:
        diagnostics: number of tiles (`tiles`), how many were evaluated (`evaluated`), how they get their energies
            (`method`, `"table"` or `"network"`), and of the last call of `calculate` the seconds (`times`).
    """

    def __init__(self, model: GridModel, settings: Settings) -> None:
        self.model, self.settings = model, settings
        self.diagnostics: dict[str, Any] = {}
        self._tiles: dict[bool, TileEnergies] = {}  # by whether the lattice is periodic along all axes
        self._values = np.array(model.config.values)
        self._sites: Sites | None = None  # of the last structure calculated
        self._settled: Settled | None = None
        self._trial: Settled | Trial | None = None

    def calculate(self, atoms: Atoms, *, forces: bool, stress: bool, changes: Collection[str]) -> dict[str, Any]:
        """See `Evaluator.calculate`.

        Raises:
            PropertyNotImplementedError: where forces or a stress are wanted.
            ValueError: for atoms that do not form the model's lattice, or moments that it does not know.
        """
        if forces or stress:
            raise PropertyNotImplementedError(
                "spins on a lattice have an energy and no forces or stress; ask for forces=False, or use Monte Carlo."
            )
        begun = time.perf_counter()
        known = self._sites if set(changes) <= {"initial_magmoms", "initial_charges", "numbers"} else None
        self._trial = self._settled = self._sites = None
        settled = self._evaluated(atoms, known)
        self._settled, self._sites = settled, settled.sites
        energies = settled.tiles.energies(settled.states[:-1])
        shares = settled.index.spread(energies / settled.index.focus_sizes().reshape(-1))
        self._describe(settled, settled.index.n_tiles)
        self.diagnostics["times"] = {"evaluate": time.perf_counter() - begun}
        return {
            "energy": settled.energy,
            "free_energy": settled.energy,
            "energies": shares[settled.sites.site],
        }

    def trial_energy(self, atoms: Atoms, changed: Ints) -> float:
        """See `Evaluator.trial_energy`."""
        self._trial = None
        now = self._settled
        if now is None or len(changed) >= len(now.sites.site) or len(atoms) != len(now.sites.site):
            self._trial = fresh = self._evaluated(atoms, None)
            self._describe(fresh, fresh.index.n_tiles)
            return fresh.energy
        now.sites.check(atoms, changed)
        sites, digits = now.sites.site[changed], self._digits(atoms, changed, now)
        holders = now.index.tiles_of(sites)[:, 0] if len(sites) == 1 else np.unique(now.index.tiles_of(sites))
        holders = holders[holders < now.index.n_tiles]
        states = now.tiles.states(patches(now.index, now.digits, holders, sites, digits))
        changes = now.tiles.energies(states) - now.tiles.energies(now.states[holders])
        self._trial = Trial(sites, digits, holders, states, changes.sum(keepdims=True))
        self._describe(now, len(holders))
        return now.energy + float(changes.sum())

    def commit(self, accepted: bool) -> None:
        """See `Evaluator.commit`."""
        trial, self._trial = self._trial, None
        if not accepted or trial is None:
            return
        if isinstance(trial, Settled):
            self._settled = trial
        else:
            self._make(trial.sites, trial.digits, trial.holders, trial.states, trial.changes)

    def independent_sets(self, atoms: Atoms) -> list[Ints]:
        """Sets of atoms of which no two stand in one tile; together they hold each atom once."""
        sites = Sites.of(atoms, self.model.config.lattice)
        index = TileIndex(self.model.config.tiles(sites.periodic), sites.sizes)
        return [sites.atom[chosen] for chosen in index.independent_sets()]

    def trial_energy_changes(self, atoms: Atoms, changed: Ints) -> Floats:
        """Energy change of each of many moves as if it alone were made [n_touched], eV.

        Args:
            atoms: the structure with all the moves made; it differs from the settled one only in the initial magnetic
                moments of `changed`.
            touched: atoms of one of the `independent_sets`, each once.

        Raises:
            RuntimeError: if nothing is settled yet.
        """
        self._trial, now = None, self._settled
        if now is None:
            raise RuntimeError("no state is settled; calculate() or propose() one first.")
        sites, digits = now.sites.site[changed], self._digits(atoms, changed, now)
        holders, states, changes = now.tiles.changes(now.index, now.digits, now.states, sites, digits)
        self._trial = Trial(sites, digits, holders, states, changes)
        self._describe(now, holders.size)
        return changes

    def commit_each(self, accepted: NDArray[np.bool_]) -> None:
        """Settle the proposed moves that are True in `accepted` [n_touched]."""
        trial, self._trial = self._trial, None
        if not isinstance(trial, Trial) or trial.holders.shape[1:] != accepted.shape:
            raise RuntimeError("no such moves are proposed; trial_energy_changes() them first.")
        chosen = np.flatnonzero(accepted)
        self._make(
            trial.sites[chosen],
            trial.digits[chosen],
            trial.holders.take(chosen, 1),
            trial.states.take(chosen, 1),
            trial.changes[chosen],
        )

    def reset(self) -> None:
        """See `Evaluator.reset`."""
        self.diagnostics = {}
        self._sites = self._settled = self._trial = None

    def _make(
        self, sites: Ints, digits: NDArray[np.int8], holders: Ints, states: NDArray[Any], changes: Floats
    ) -> None:
        """Put proposed values in the settled state's place."""
        assert self._settled is not None  # the trial is a change of it
        self._settled.digits[sites] = digits
        self._settled.states[holders] = states
        self._settled.energy += float(changes.sum())

    def _evaluated(self, atoms: Atoms, sites: Sites | None) -> Settled:
        """All tiles of a structure; `sites` if they are known."""
        config = self.model.config
        sites = Sites.of(atoms, config.lattice) if sites is None else sites
        index = TileIndex(config.tiles(sites.periodic), sites.sizes)
        tiles = self._tile_energies(all(sites.periodic))
        digits = np.empty(index.n_sites + 1, np.int8)
        moments = atoms.get_initial_magnetic_moments()
        digits[sites.site] = read_values(moments, self._values) + tiles.first
        digits[-1] = 0
        states = tiles.grid_states(index, digits[:-1])
        energy = float(tiles.energies(states).sum())
        if not np.isfinite(energy):
            raise CalculationFailed("the energy is not finite; are the weights?")
        return Settled(sites, index, tiles, digits, np.append(states, states[:1]), energy)

    def _tile_energies(self, closed: bool) -> TileEnergies:
        if closed not in self._tiles:
            self._tiles[closed] = tile_energies(self.model, closed, self.settings)
        return self._tiles[closed]

    def _digits(self, atoms: Atoms, changed: Ints, now: Settled) -> NDArray[np.int8]:
        """The values that the touched atoms have; no copy of all of them is made."""
        if "initial_magmoms" not in atoms.arrays:
            raise ValueError("the atoms have no initial magnetic moments; set_initial_magnetic_moments() first.")
        return read_values(atoms.arrays["initial_magmoms"][changed], self._values) + now.tiles.first

    def _describe(self, state: Settled, evaluated: int) -> None:
        self.diagnostics = {
            "tiles": state.index.n_tiles,
            "evaluated": evaluated,
            "method": state.tiles.method,
            "device": str(self.settings.device),
        }
