"""Evaluator of spin lattices: full energies, and energy changes of Monte Carlo moves from the affected tiles."""

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
class LatticeState:
    """State of a lattice with the energies of its tiles.

    Attributes:
        digits: index of the value at each site, int8 [n_sites + 1]; the last one is that of sites outside the grid.
        states: state of every tile, `TileEnergies.states`, [n_tiles + 1]; the last one is a placeholder.
        energy: energy of the lattice, eV.
    """

    sites: Sites
    index: TileIndex
    tiles: TileEnergies
    digits: NDArray[np.int8]
    states: NDArray[Any]
    energy: float


@dataclass(frozen=True)
class Trial:
    """New digits of some sites, and the new states of the tiles that contain them.

    Attributes:
        sites: flat indices of the sites [n].
        digits: new digits [n].
        holders: tiles that contain the sites [n_holders]; for many independent moves [n_holders, n].
        states: new states of these tiles.
        changes: energy change, eV, in total [1] or per site [n].
    """

    sites: Ints
    digits: NDArray[np.int8]
    holders: Ints
    states: NDArray[Any]
    changes: Floats


class LatticeEvaluator(Evaluator):
    """Energies and energy changes of spins on a lattice.

    `trial_energy` and `trial_energy_changes` evaluate only the tiles that contain a changed site; the energy change is
    exact. The running energy is a sum of changes in float64; `calculate` recomputes it.

    There are no forces, as sites are fixed.

    Args:
        model: the model, on the settings' device and in their precision.
        settings: see `AndersoNN`.

    Attributes:
        diagnostics: number of tiles (`tiles`), how many were evaluated (`evaluated`), how their energies are computed
            (`method`, `"table"` or `"network"`), and the seconds of the last call of `calculate` (`times`).
    """

    def __init__(self, model: GridModel, settings: Settings) -> None:
        self.model, self.settings = model, settings
        self.diagnostics: dict[str, Any] = {}
        self._tiles: dict[bool, TileEnergies] = {}  # by whether the lattice is periodic along all axes
        self._values = np.array(model.config.values)
        self._sites: Sites | None = None  # of the last structure calculated
        self._state: LatticeState | None = None
        self._trial: LatticeState | Trial | None = None

    def calculate(self, atoms: Atoms, *, forces: bool, stress: bool, changes: Collection[str]) -> dict[str, Any]:
        """See `Evaluator.calculate`.

        Raises:
            PropertyNotImplementedError: if forces or stress are requested.
            ValueError: for atoms that do not form the model's lattice, or moments that are not among its values.
        """
        if forces or stress:
            raise PropertyNotImplementedError(
                "spins on a lattice have an energy but no forces or stress; ask for the energy, or use Monte Carlo."
            )
        begun = time.perf_counter()
        known = self._sites if set(changes) <= {"initial_magmoms", "initial_charges", "numbers"} else None
        self._trial = self._state = self._sites = None
        state = self._evaluated(atoms, known)
        self._state, self._sites = state, state.sites
        energies = state.tiles.energies(state.states[:-1])
        shares = state.index.per_site(energies / state.index.focus_sizes().reshape(-1))
        self._describe(state, state.index.n_tiles)
        self.diagnostics["times"] = {"evaluate": time.perf_counter() - begun}
        return {
            "energy": state.energy,
            "free_energy": state.energy,
            "energies": shares[state.sites.site],
        }

    def trial_energy(self, atoms: Atoms, changed: Ints) -> float:
        """See `Evaluator.trial_energy`."""
        self._trial = None
        state = self._state
        if state is None or len(changed) >= len(state.sites.site) or len(atoms) != len(state.sites.site):
            self._trial = fresh = self._evaluated(atoms, None)
            self._describe(fresh, fresh.index.n_tiles)
            return fresh.energy
        state.sites.check(atoms, changed)
        sites, digits = state.sites.site[changed], self._digits(atoms, changed, state)
        holders = state.index.tiles_of(sites)[:, 0] if len(sites) == 1 else np.unique(state.index.tiles_of(sites))
        holders = holders[holders < state.index.n_tiles]
        states = state.tiles.states(patches(state.index, state.digits, holders, sites, digits))
        changes = state.tiles.energies(states) - state.tiles.energies(state.states[holders])
        self._trial = Trial(sites, digits, holders, states, changes.sum(keepdims=True))
        self._describe(state, len(holders))
        return state.energy + float(changes.sum())

    def commit(self, accepted: bool) -> None:
        """See `Evaluator.commit`."""
        trial, self._trial = self._trial, None
        if not accepted or trial is None:
            return
        if isinstance(trial, LatticeState):
            self._state = trial
        else:
            self._apply(trial.sites, trial.digits, trial.holders, trial.states, trial.changes)

    def independent_sets(self, atoms: Atoms) -> list[Ints]:
        """Partition of the atoms into sets without two atoms in one tile."""
        sites = Sites.of(atoms, self.model.config.lattice)
        index = TileIndex(self.model.config.tiles(sites.periodic), sites.sizes)
        return [sites.atom[chosen] for chosen in index.independent_sets()]

    def trial_energy_changes(self, atoms: Atoms, changed: Ints) -> Floats:
        """Energy change of each move made alone [n_changed], eV.

        Args:
            atoms: the structure with all moves made; it differs from the committed one only in the initial magnetic
                moments of `changed`.
            changed: atoms of one of the `independent_sets`, each once.

        Raises:
            RuntimeError: if there is no committed state yet.
        """
        self._trial, state = None, self._state
        if state is None:
            raise RuntimeError(
                "there is no committed state; call calculate(), or trial_energy() and commit(True), first."
            )
        sites, digits = state.sites.site[changed], self._digits(atoms, changed, state)
        holders, states, changes = state.tiles.changes(state.index, state.digits, state.states, sites, digits)
        self._trial = Trial(sites, digits, holders, states, changes)
        self._describe(state, holders.size)
        return changes

    def commit_each(self, accepted: NDArray[np.bool_]) -> None:
        """Commit the moves that are True in `accepted` [n_changed]."""
        trial, self._trial = self._trial, None
        if not isinstance(trial, Trial) or trial.holders.shape[1:] != accepted.shape:
            raise RuntimeError("there are no trial moves of this shape; call trial_energy_changes() first.")
        chosen = np.flatnonzero(accepted)
        self._apply(
            trial.sites[chosen],
            trial.digits[chosen],
            trial.holders.take(chosen, 1),
            trial.states.take(chosen, 1),
            trial.changes[chosen],
        )

    def reset(self) -> None:
        """See `Evaluator.reset`."""
        self.diagnostics = {}
        self._sites = self._state = self._trial = None

    def _apply(
        self, sites: Ints, digits: NDArray[np.int8], holders: Ints, states: NDArray[Any], changes: Floats
    ) -> None:
        """Update the committed state with trial values."""
        assert self._state is not None  # the trial is a change of it
        self._state.digits[sites] = digits
        self._state.states[holders] = states
        self._state.energy += float(changes.sum())

    def _evaluated(self, atoms: Atoms, sites: Sites | None) -> LatticeState:
        """State of a structure from an evaluation of all tiles; `sites` if they are known."""
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
            raise CalculationFailed("the energy is not finite; check the model's weights.")
        return LatticeState(sites, index, tiles, digits, np.append(states, states[:1]), energy)

    def _tile_energies(self, closed: bool) -> TileEnergies:
        if closed not in self._tiles:
            self._tiles[closed] = tile_energies(self.model, closed, self.settings)
        return self._tiles[closed]

    def _digits(self, atoms: Atoms, changed: Ints, state: LatticeState) -> NDArray[np.int8]:
        """Digits of the changed atoms, without a copy of all moments."""
        if "initial_magmoms" not in atoms.arrays:
            raise ValueError("the atoms have no initial magnetic moments; call set_initial_magnetic_moments() first.")
        return read_values(atoms.arrays["initial_magmoms"][changed], self._values) + state.tiles.first

    def _describe(self, state: LatticeState, evaluated: int) -> None:
        self.diagnostics = {
            "tiles": state.index.n_tiles,
            "evaluated": evaluated,
            "method": state.tiles.method,
            "device": str(self.settings.device),
        }
