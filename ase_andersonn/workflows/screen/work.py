"""What is computed of a block of structures: relaxed together, then the properties of each.

A block is computed as a whole, by a calculator without a history, so that its numbers do not depend on what was
computed before it, where, or how often the work was interrupted.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from ase_andersonn.workflows._evaluate import evaluate_each, is_batched
from ase_andersonn.workflows._results import plain
from ase_andersonn.workflows.reason import reason
from ase_andersonn.workflows.relax import CellMode, Relaxation, relax_each

StructureResult = dict[str, Any]
"""`values` by columns, `errors` by properties, `converged`, `atoms` (relaxed, or None), `curves` for the report."""
MAX_CURVE_POINTS = 200
"""Energies of a relaxation that are kept for its picture, about."""
MAX_BAND_POINTS = 1500
"""Frequencies that are kept for the picture of a crystal's bands, about."""
UNCERTAINTY_KEYS = ("extrapolation", "energy_std")
"""Entries of a calculator's diagnostics; after `evaluate`, lists of one entry per structure."""


@dataclass(frozen=True)
class Work:
    """Computes blocks; picklable where calculator and classifier are.

    Attributes:
        calc: any ASE calculator.
        properties: of `columns.PROPERTIES`.
        classifier: has `predict_many(structures, progress_bar=False)`, as `StructureClassifier`; for `"label"`.
        fmax: eV/Å, of the relaxations.
        steps: of the relaxations at most.
        cell: see `relax_each`.
        min_length: Å, of phonons' supercells.
    """

    calc: Any
    properties: tuple[str, ...]
    classifier: Any
    fmax: float
    steps: int
    cell: CellMode
    min_length: float

    def __call__(self, block: Sequence[Atoms]) -> list[StructureResult]:
        """The result for each structure, as JSON holds it; what is wrong with one is an error in its result."""
        if callable(getattr(self.calc, "reset", None)):
            self.calc.reset()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # uncertainties have columns of their own
            relaxed = dict(relax_each(block, self.calc, fmax=self.fmax, steps=self.steps, cell=self.cell))
            results = [_relaxed(relaxed[k]) for k in range(len(block))]
            found = [(result, result["atoms"]) for result in results if result["atoms"] is not None]
            uncertainties = self._uncertainties([atoms for _, atoms in found])
            for (result, _), values in zip(found, uncertainties, strict=True):
                result["values"] |= values
            good = [(result, atoms) for result, atoms in found if result["converged"]]
            if "label" in self.properties and good:
                self._label(good)
            for result, atoms in good:
                for name in COMPUTE:
                    if name in self.properties:
                        self._add(result, name, atoms)
        checked: list[StructureResult] = plain(results)
        return checked

    def _uncertainties(self, frames: Sequence[Atoms]) -> list[dict[str, float]]:
        """Out-of-distribution numbers and standard deviation of each structure, as far as the calculator has them."""
        if not hasattr(self.calc, "diagnostics"):
            return [{} for _ in frames]
        if len(frames) > 1 and is_batched(self.calc):
            evaluate_each(frames, self.calc, forces=False)
            found = {name: self.calc.diagnostics[name] for name in UNCERTAINTY_KEYS if name in self.calc.diagnostics}
            if all(isinstance(entry, list) and len(entry) == len(frames) for entry in found.values()):
                return [_uncertainty({name: entry[k] for name, entry in found.items()}) for k in range(len(frames))]
        uncertainties = []
        for atoms in frames:
            evaluate_each([atoms], self.calc, forces=False)
            uncertainties.append(_uncertainty({name: self.calc.diagnostics.get(name) for name in UNCERTAINTY_KEYS}))
        return uncertainties

    def _label(self, good: Sequence[tuple[StructureResult, Atoms]]) -> None:
        labels = self.classifier.predict_many([atoms for _, atoms in good], progress_bar=False)
        for (result, _), label in zip(good, labels, strict=True):
            if isinstance(label, Exception):
                result["errors"]["label"] = reason(label)
                continue
            result["values"] |= {
                "label": label.best,
                "label_probability": label.confidence,
                "label_out_of_distribution": label.out_of_distribution,
            }
            result["curves"]["label"] = dict(label.probabilities)

    def _add(self, result: StructureResult, name: str, atoms: Atoms) -> None:
        if not atoms.pbc.all():
            result["errors"][name] = f"only crystals have it; pbc is {atoms.pbc.tolist()}."
            return
        try:
            values, curve = COMPUTE[name](self, atoms)
        except Exception as error:  # whatever a library raised: one property less
            result["errors"][name] = reason(error)
        else:
            result["values"] |= values
            result["curves"][name] = curve

    def bulk_modulus(self, atoms: Atoms) -> tuple[dict[str, Any], Any]:
        """Values and curve of an equation of state."""
        from ase_andersonn.workflows.eos import equation_of_state

        found = equation_of_state(atoms, self.calc, fmax=self.fmax)
        values = {
            "bulk_modulus": found.bulk_modulus,
            "bulk_modulus_derivative": found.bulk_modulus_derivative,
            "fit_holds": found.holds,
        }
        fit = (found.energy, found.volume, found.bulk_modulus, found.bulk_modulus_derivative)
        return values, {"volumes": found.volumes, "energies": found.energies, "fit": fit}

    def elastic(self, atoms: Atoms) -> tuple[dict[str, Any], Any]:
        """Values of elastic constants, and the tensor."""
        from ase_andersonn.workflows.elastic import elastic_constants

        found = elastic_constants(atoms, self.calc)
        values = {
            "elastic_bulk_modulus": found.bulk_modulus,
            "shear_modulus": found.shear_modulus,
            "anisotropy": found.anisotropy,
            "mechanically_stable": found.stable,
        }
        return values, np.round(found.tensor, 2)

    def phonons(self, atoms: Atoms) -> tuple[dict[str, Any], Any]:
        """Values of phonons, and their bands."""
        from ase_andersonn.workflows.phonons import phonons

        found = phonons(atoms, self.calc, min_length=self.min_length)
        values = {"lowest_frequency": found.lowest_frequency, "dynamically_stable": found.stable}
        bands = found.bands
        size = sum(frequencies.size for frequencies in bands.frequencies)
        segments = []
        for ends, x, y in zip(bands.labels, bands.distances, bands.frequencies, strict=True):
            points = max(3, round(len(x) * MAX_BAND_POINTS / size))
            kept = np.unique(np.linspace(0, len(x) - 1, points).round().astype(int))
            segments.append({"labels": ends, "distances": x[kept].round(4), "frequencies": y[kept].round(3)})
        return values, segments


COMPUTE: dict[str, Callable[[Work, Atoms], tuple[dict[str, Any], Any]]] = {
    "bulk_modulus": Work.bulk_modulus,
    "elastic": Work.elastic,
    "phonons": Work.phonons,
}
"""Values by columns, and a curve, of a relaxed structure."""


def _relaxed(found: Relaxation) -> StructureResult:
    values: dict[str, Any] = {}
    atoms = found.atoms if found.energies else None
    if atoms is not None:
        n = len(atoms)
        values = {"energy_per_atom": found.energy / n, "fmax": found.fmax, "steps": found.steps}
        values |= {"volume_per_atom": found.volume / n, "volume_change": found.volume / found.initial_volume - 1}
        values["space_group"] = _space_group(atoms)
    every = max(1, len(found.energies) // MAX_CURVE_POINTS)
    energies = [*found.energies[:-1][::every], *found.energies[-1:]]
    steps = [*range(found.steps)[::every], *([found.steps] if found.energies else [])]
    return {
        "values": values,
        "errors": {} if found.error is None else {"relaxation": found.error},
        "converged": found.converged,
        "atoms": None if atoms is None else _bare(atoms),
        "curves": {"relaxation": {"steps": steps, "energies": energies}},
    }


def _space_group(atoms: Atoms) -> str | None:
    import spglib

    if not atoms.pbc.all():
        return None
    try:
        found = spglib.get_spacegroup((atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers), symprec=0.01)
    except Exception:  # as of a cell that collapsed
        return None
    return None if found is None else str(found)


def _uncertainty(found: dict[str, Any]) -> dict[str, float]:
    uncertainty: dict[str, float] = {}
    if (scores := found.get("extrapolation")) is not None:
        uncertainty = {"extrapolation": float(np.mean(scores)), "largest_extrapolation": float(np.max(scores))}
    if (std := found.get("energy_std")) is not None:
        uncertainty["energy_std"] = float(std)
    return uncertainty


def _bare(atoms: Atoms) -> Atoms:
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
