"""Where molecular dynamics has left what its potential is made for."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.neighborlist import natural_cutoffs, neighbor_list

from ._evaluate import check_positive

HOT, TIMES_HOTTER = 3000.0, 10.0
"""K, and multiple of the temperature asked for, that together are too hot."""
ENERGY_CHANGE = 10.0
"""eV/atom, more than any solid's cohesive energy."""
CLOSEST = 0.4
"""Of the sum of the covalent radii."""
VOLUME_FACTOR = 8.0


@dataclass
class Limits:
    """When a run stops; see `md.molecular_dynamics`. `begin` tells what it starts from."""

    temperature: float | None
    extrapolation: float | None
    spread: float | None
    has_exploded: bool = False

    def check(self) -> None:
        """Raise ValueError for limits without a meaning."""
        names = {"max_temperature": self.temperature, "max_extrapolation": self.extrapolation}
        names["max_spread"] = self.spread
        check_positive(**{name: value for name, value in names.items() if value is not None})

    def begin(self, atoms: Atoms, wanted: float | None, temperature: float) -> None:
        """Take the structure as it is as the beginning.

        Raises:
            ValueError: for a limit of a quantity that the calculator does not give.
        """
        atoms.get_forces()  # a committee's spread comes with them
        self._energy, self._volume = present_energy(atoms), float(atoms.cell.volume)
        self._doubts(getattr(atoms.calc, "diagnostics", {}))
        self._hot = self.temperature or HOT + TIMES_HOTTER * max(wanted or 0.0, temperature)

    def why(self, dynamics: Any, temperature: float, *, look: bool) -> str | None:
        """Why to stop here, or None; distances are measured only where asked to `look`."""
        atoms = dynamics.atoms
        atoms.get_forces()
        return self.exploded(atoms, temperature, look=look) or self._doubts(getattr(atoms.calc, "diagnostics", {}))

    def exploded(self, atoms: Atoms, temperature: float, *, look: bool) -> str | None:
        """Why a run has exploded, by what is known without a calculation, or None."""
        found = self._exploded(atoms, temperature) or (_too_close(atoms) if look else None)
        self.has_exploded |= found is not None
        return found

    def _exploded(self, atoms: Atoms, temperature: float) -> str | None:
        known = getattr(atoms.calc, "results", {})
        energy = known.get("energy", self._energy)
        numbers = (atoms.positions, atoms.get_momenta(), atoms.cell.array, energy, known.get("forces", 0.0))
        if not all(np.isfinite(each).all() for each in numbers):
            return "energy, forces, positions or velocities were not finite"
        if not temperature <= self._hot:
            return f"the temperature was {temperature:.0f} K, more than {self._hot:.0f} K"
        if abs(change := (energy - self._energy) / len(atoms)) > ENERGY_CHANGE:
            return f"the potential energy had changed by {change:.1f} eV/atom"
        volume = float(atoms.cell.volume)
        if atoms.pbc.all() and not 1 / VOLUME_FACTOR < volume / self._volume < VOLUME_FACTOR:
            return f"the volume had changed from {self._volume:.4g} to {volume:.4g} Å³"
        return None

    def _doubts(self, diagnostics: Any) -> str | None:
        for name, title, limit, reduce in (
            ("extrapolation", "the mean extrapolation", self.extrapolation, np.mean),
            ("forces_std", "the committee's spread of a force, eV/Å,", self.spread, np.max),
        ):
            if limit is None:
                continue
            if name not in diagnostics:
                raise ValueError(f"a limit was given for {title} of a calculator that does not give it.")
            if (found := float(reduce(diagnostics[name]))) > limit:
                return f"{title} was {found:.3g}, more than {limit:g}"
        return None


def present_energy(atoms: Atoms) -> float:
    """The potential energy, eV, after the forces were asked for: ASE's comparison of structures costs, done again."""
    known = getattr(atoms.calc, "results", {}).get("energy")
    return float(atoms.get_potential_energy() if known is None else known)


def _too_close(atoms: Atoms) -> str | None:
    i, j, d = neighbor_list("ijd", atoms, natural_cutoffs(atoms, mult=CLOSEST))
    if not len(d):
        return None
    k = int(np.argmin(d))
    return f"atoms {i[k]} and {j[k]} ({atoms.symbols[i[k]]}, {atoms.symbols[j[k]]}) were {d[k]:.2f} Å apart"
