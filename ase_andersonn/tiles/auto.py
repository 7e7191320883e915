"""Tiles where the evaluation of the whole structure would not fit in memory, and only there."""

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

ALWAYS_FITS = 2000
"""Atoms up to which nothing is estimated."""
SAMPLES = 8
"""Atoms whose neighbours are counted for the estimate, of each element where pairs have cutoffs of their own."""
CROWDED = 1.5
"""The most neighbours of an atom over the mean of those counted."""


class AutoEvaluator(Evaluator):
    """Evaluates a structure as a whole where that, with forces, fits in memory, and by tiles otherwise.

    What was chosen for a structure stays for all like it, whatever is asked for and whatever memory is left: energies
    by tiles and of the whole differ a little, and are never mixed in one run.

    Args:
        model: the model, on the settings' device and in their precision.
        settings: see `AndersoNN`.
        tiles: how to cut, where it has to be.

    Attributes:
        diagnostics: those of the evaluator that was used, and of structures for which it was a question `tiled`, the
            bytes that the whole would take (`memory_estimate`) and those there were (`memory_available`).
    """

    def __init__(self, model: EnergyModel, settings: Settings, tiles: Tiles) -> None:
        self.model, self.settings, self.tiles = model, settings, tiles
        self.whole = DirectEvaluator(model, settings)
        self.tiled = TiledEvaluator(
            model, settings, focus=tiles.focus, context=tiles.context, max_memory=tiles.max_memory
        )
        self.diagnostics: dict[str, Any] = {}
        self._used: Evaluator = self.whole
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
        """See `Evaluator.calculate_many`: those that fit in memory as a whole in batches, the others one by one."""
        ask: dict[str, Any] = {"forces": forces, "stress": stress, "batch_atoms": batch_atoms}
        chosen: dict[Evaluator, list[int]] = {self.whole: [], self.tiled: []}
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
        self.whole.reset()
        self.tiled.reset()
        self.diagnostics = {}

    def _choose(self, atoms: Atoms) -> dict[str, Any]:
        if self._chosen_for is not None and self._chosen_for.holds(atoms):
            return self._choice
        self._chosen_for, self._used, self._choice = ChosenFor.of(atoms), self.whole, {}
        if len(atoms) > ALWAYS_FITS:
            need = estimate_memory(self.model, len(atoms), most_neighbors(atoms, self.model.edge_cutoff), forces=True)
            free = self.tiles.max_memory or available_memory(self.settings.device)
            self._used = self.tiled if need > free else self.whole
            self._choice = {"tiled": need > free, "memory_estimate": need, "memory_available": free}
        return self._choice


def most_neighbors(atoms: Atoms, cutoff: Cutoff) -> float:
    """The most neighbours that an atom of a large structure has, estimated from a few atoms of its middle."""
    positions, numbers = atoms.positions, atoms.numbers
    from_middle = np.argsort(np.square(positions - positions.mean(0)).sum(1))
    if not isinstance(cutoff, PairCutoffs):
        kinds = [from_middle[:SAMPLES]]
    else:  # an element with long cutoffs has the most
        kinds = [from_middle[numbers[from_middle] == number][:SAMPLES] for number in np.unique(numbers)]

    def count(i: int) -> int:
        limits = cutoff.table[numbers[i], numbers] if isinstance(cutoff, PairCutoffs) else cutoff
        return int(np.count_nonzero(np.square(positions - positions[i]).sum(1) < limits**2)) - 1

    return CROWDED * max(1.0, *(float(np.mean([count(i) for i in kind])) for kind in kinds))
