"""State shared by the moves of a simulation: atoms, random numbers, temperature, and indices for choices in O(1)."""

from collections.abc import Collection

import numpy as np
from ase import Atoms, units
from ase.constraints import FixAtoms, FixCartesian
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class SpeciesIndex:
    """Atoms by species, with changes in constant time.

    Args:
        numbers: [n_atoms], atomic numbers.
        indices: the indexed atoms; None for all.
    """

    def __init__(self, numbers: NDArray[np.integer], indices: Ints | None) -> None:
        among = np.arange(len(numbers)) if indices is None else indices
        self.place = np.full(len(numbers), -1)
        self.members: dict[int, list[int]] = {}
        chosen = numbers[among]
        for number in np.unique(chosen).tolist():
            atoms = among[chosen == number]
            self.members[number] = atoms.tolist()
            self.place[atoms] = np.arange(len(atoms))

    def relabel(self, atom: int, old: int, new: int) -> None:
        """Update the index for an atom that changed from species `old` to `new`."""
        place = int(self.place[atom])
        if place < 0:
            return
        last = self.members[old].pop()
        if last != atom:
            self.members[old][place] = last
            self.place[last] = place
        others = self.members.setdefault(new, [])
        self.place[atom] = len(others)
        others.append(atom)

    def counts(self) -> dict[int, int]:
        """Number of atoms of each species present."""
        return {number: len(atoms) for number, atoms in sorted(self.members.items()) if atoms}


class Context:
    """Atoms, temperature and random numbers of one simulation, on which its moves operate.

    Args:
        atoms: the structure, changed in place.
        temperature_K: K.
        rng: all random numbers of the simulation.
        count_varies: whether some move changes the number of atoms.
        composition_varies: whether some move changes the composition.

    Attributes:
        geometry: counter, incremented whenever positions, cell or number of atoms may have changed.
        counted: counter, incremented whenever the number of atoms may have changed.
    """

    def __init__(
        self,
        atoms: Atoms,
        temperature_K: float,
        rng: np.random.Generator,
        *,
        count_varies: bool = False,
        composition_varies: bool = False,
    ) -> None:
        self.atoms, self.temperature_K, self.rng = atoms, temperature_K, rng
        self.count_varies, self.composition_varies = count_varies, composition_varies
        self.geometry = self.counted = 0
        self._species: dict[int | None, SpeciesIndex] = {}
        self._mobile: dict[int | None, Ints | None] = {}
        self._frozen: list[Bools | None] = []

    @property
    def kT(self) -> float:
        """eV."""
        return float(units.kB * self.temperature_K)

    def pick(self, n: int) -> int:
        """Uniform random integer from 0 to n - 1; several times faster than `Generator.integers`."""
        return int(self.rng.random() * n)

    def by_species(self, indices: Ints | None = None) -> SpeciesIndex:
        """Index by species of all atoms, or of the given ones (pass the same array each time)."""
        key = None if indices is None else id(indices)
        if key not in self._species:
            self._species[key] = SpeciesIndex(self.atoms.numbers, indices)
        return self._species[key]

    def relabel(self, atom: int, old: int, new: int) -> None:
        """Update all indices after an accepted change of an atom's species."""
        for index in self._species.values():
            index.relabel(atom, old, new)

    def relabel_many(self) -> None:
        """Discard all indices after accepted changes of many atoms' species."""
        self._species.clear()

    @property
    def frozen(self) -> Bools | None:
        """[n_atoms, 3], which coordinates constraints hold fixed; None where there are no constraints.

        Raises:
            ValueError: for constraints other than FixAtoms and FixCartesian.
        """
        if not self._frozen:
            self._frozen.append(frozen_coordinates(self.atoms))
        return self._frozen[0]

    def mobile(self, indices: Ints | None = None) -> Ints | None:
        """Atoms with a coordinate that may change, of all or of those given; None where these are all atoms."""
        key = None if indices is None else id(indices)
        if key not in self._mobile:
            found = indices
            if self.frozen is not None:
                free = np.flatnonzero(~self.frozen.all(1))
                found = free if indices is None else np.intersect1d(indices, free)
            self._mobile[key] = found
        return self._mobile[key]

    def changed(self, what: Collection[str]) -> None:
        """Update counters after an accepted move that changed some of positions, cell, count."""
        if "count" in what:
            self.clear()
        elif "positions" in what or "cell" in what:
            self.geometry += 1

    def clear(self) -> None:
        """Discard all indices derived from the atoms, so that the order in them does not depend on the history."""
        self._species.clear()
        self._mobile.clear()
        self._frozen.clear()
        self.geometry += 1
        self.counted += 1


def frozen_coordinates(atoms: Atoms) -> Bools | None:
    """[n_atoms, 3], which coordinates constraints hold fixed; None where there are none.

    Raises:
        ValueError: for constraints other than FixAtoms and FixCartesian.
    """
    if not atoms.constraints:
        return None
    frozen = np.zeros((len(atoms), 3), bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            frozen[constraint.index] = True
        elif isinstance(constraint, FixCartesian):
            frozen[constraint.index] |= constraint.mask
        else:
            raise ValueError(
                f"the atoms have the constraint {type(constraint).__name__}; Monte Carlo moves of positions respect "
                "FixAtoms and FixCartesian only. Remove it with atoms.set_constraint()."
            )
    return frozen
