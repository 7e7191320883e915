"""Evaluator that uses tiles only for structures that would not fit in memory otherwise."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_andersonn.engine.evaluator import DirectEvaluator
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.potentials.interface import Evaluator, Settings
from ase_andersonn.structures.neighbors import Cutoff, PairCutoffs

from .evaluator import TiledEvaluator
from .memory import available_memory, estimate_memory
from .settings import ChosenFor, Tiles

MAX_ATOMS_UNCHECKED = 2000
"""Number of atoms up to which memory is not estimated."""
SAMPLED_ATOMS = 8
"""Atoms whose neighbours are counted for the estimate; per element if cutoffs depend on the pair of elements."""
MAX_TO_MEAN_NEIGHBORS = 1.5
"""Assumed ratio of the largest number of neighbours of an atom to the mean of the sampled atoms."""


class AutoEvaluator(Evaluator):
    """Direct evaluation of structures that fit in memory with forces, tiled evaluation of larger ones.

    The choice for a structure is kept for all similar ones (`ChosenFor`), for any requested properties and free memory:
    tiled and direct energies differ slightly and must not be mixed in one run.

    Args:
        model: the model, on the settings' device and in their precision.
        settings: see `AndersoNN`.
        tiles: settings of the tiled evaluation.

    Attributes:
        diagnostics: those of the evaluator used; if memory was estimated, also `tiled`, the bytes of a direct
            evaluation (`memory_estimate`) and the bytes available (`memory_available`).
    """

    def __init__(self, model: EnergyModel, settings: Settings, tiles: Tiles) -> None:
        self.model, self.settings, self.tiles = model, settings, tiles
        self.direct = DirectEvaluator(model, settings)
        self.tiled = TiledEvaluator(
            model, settings, focus=tiles.focus, context=tiles.context, max_memory=tiles.max_memory
        )
        self.diagnostics: dict[str, Any] = {}
        self._used: Evaluator = self.direct
        self._chosen_for: ChosenFor | None = None
        self._choice: dict[str, Any] = {}

    def calculate(self, atoms: Atoms, *, forces: bool, stress: bool, changes: Collection[str]) -> dict[str, Any]:
        """See `Evaluator.calculate`."""
        choice = self._choose(atoms)
        results = self._used.calculate(atoms, forces=forces, stress=stress, changes=changes)
        self.diagnostics = {**self._used.diagnostics, **choice}
        return results

    def calculate_many(
        self, structures: Sequence[Atoms], *, forces: bool, stress: bool, batch_atoms: int
    ) -> list[dict[str, Any]]:
        """See `Evaluator.calculate_many`: structures that fit in memory in batches, the others one by one."""
        ask: dict[str, Any] = {"forces": forces, "stress": stress, "batch_atoms": batch_atoms}
        chosen: dict[Evaluator, list[int]] = {self.direct: [], self.tiled: []}
        choice: dict[str, Any] = {}
        for index, atoms in enumerate(structures):
            choice = self._choose(atoms)
            chosen[self._used].append(index)
        results: dict[int, dict[str, Any]] = {}
        for evaluator, indices in chosen.items():
            if indices:
                found = evaluator.calculate_many([structures[index] for index in indices], **ask)
                results |= dict(zip(indices, found, strict=True))
                self.diagnostics = {**evaluator.diagnostics, **choice}
        return [results[index] for index in range(len(structures))]

    def trial_energy(self, atoms: Atoms, changed: NDArray[np.int64]) -> float:
        """See `Evaluator.trial_energy`."""
        choice = self._choose(atoms) if len(changed) == len(atoms) else {}
        energy = self._used.trial_energy(atoms, changed)
        self.diagnostics = {**self._used.diagnostics, **choice}
        return energy

    def commit(self, accepted: bool) -> None:
        """See `Evaluator.commit`."""
        self._used.commit(accepted)

    def reset(self) -> None:
        """See `Evaluator.reset`."""
        self.direct.reset()
        self.tiled.reset()
        self.diagnostics = {}

    def _choose(self, atoms: Atoms) -> dict[str, Any]:
        if self._chosen_for is not None and self._chosen_for.matches(atoms):
            return self._choice
        self._chosen_for, self._used, self._choice = ChosenFor.of(atoms), self.direct, {}
        if len(atoms) > MAX_ATOMS_UNCHECKED:
            need = estimate_memory(self.model, len(atoms), most_neighbors(atoms, self.model.edge_cutoff), forces=True)
            free = self.tiles.max_memory or available_memory(self.settings.device)
            self._used = self.tiled if need > free else self.direct
            self._choice = {"tiled": need > free, "memory_estimate": need, "memory_available": free}
        return self._choice


def most_neighbors(atoms: Atoms, cutoff: Cutoff) -> float:
    """Estimated largest number of neighbours of an atom, from a few atoms near the centre of a large structure."""
    positions, numbers = atoms.positions, atoms.numbers
    from_middle = np.argsort(np.square(positions - positions.mean(0)).sum(1))
    if not isinstance(cutoff, PairCutoffs):
        kinds = [from_middle[:SAMPLED_ATOMS]]
    else:  # elements with the longest cutoffs have the most neighbours
        kinds = [from_middle[numbers[from_middle] == number][:SAMPLED_ATOMS] for number in np.unique(numbers)]

    def count(i: int) -> int:
        limits = cutoff.table[numbers[i], numbers] if isinstance(cutoff, PairCutoffs) else cutoff
        return int(np.count_nonzero(np.square(positions - positions[i]).sum(1) < limits**2)) - 1

    return MAX_TO_MEAN_NEIGHBORS * max(1.0, *(float(np.mean([count(i) for i in kind])) for kind in kinds))
