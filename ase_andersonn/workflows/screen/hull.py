"""Energies above the convex hull of reference entries, pymatgen's PhaseDiagram."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ase import Atoms


class Hull:
    """The hull of reference entries; each chemical system's is made once.

    Args:
        entries: pymatgen's, with energies of the same level of theory as those that are asked for.
    """

    def __init__(self, entries: Sequence[Any]) -> None:
        self.entries = list(entries)
        self._diagrams: dict[frozenset[str], Any] = {}

    def above(self, atoms: Atoms, energy_per_atom: float) -> float:
        """E − E_hull, eV/atom; negative where the structure is below the hull of the references.

        Raises:
            ValueError: where an element has no reference of its own.
        """
        diagram = self._diagram(frozenset(atoms.get_chemical_symbols()))
        return float(diagram.get_e_above_hull(entry_of(atoms, energy_per_atom, ""), allow_negative=True))

    def _diagram(self, symbols: frozenset[str]) -> Any:
        from pymatgen.analysis.phase_diagram import PhaseDiagram

        if symbols not in self._diagrams:
            own = [e for e in self.entries if {element.symbol for element in e.composition.elements} <= symbols]
            pure = {e.composition.elements[0].symbol for e in own if len(e.composition.elements) == 1}
            if lacking := sorted(symbols - pure):
                raise ValueError(f"the references hold no pure {', '.join(lacking)}.")
            self._diagrams[symbols] = PhaseDiagram(own)
        return self._diagrams[symbols]


def entry_of(atoms: Atoms, energy_per_atom: float, name: str) -> Any:
    """A computed structure as an entry."""
    from pymatgen.core.composition import Composition
    from pymatgen.entries.computed_entries import ComputedEntry

    composition = Composition(atoms.get_chemical_formula())
    return ComputedEntry(composition, energy_per_atom * len(atoms), entry_id=name)


def is_entry(reference: Any) -> bool:
    """Whether a reference is one of pymatgen's entries, whose energy is taken as it is."""
    return hasattr(reference, "composition") and hasattr(reference, "energy_per_atom")


def read_entries(path: Path) -> list[Any]:
    """The entries of a JSON file of pymatgen's, such as a list of ComputedEntry; none for a file of anything else.

    Only compositions, energies and corrections are read; no class that a file names is ever imported.

    Raises:
        ValueError: for an entry whose composition or energy has no meaning.
    """
    if path.suffix.lower() != ".json":
        return []
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):  # an error where it is read as structures
        return []
    return [_entry(record, path) for record in _records(data)]


def _records(data: Any) -> Iterator[dict[str, Any]]:
    if isinstance(data, list):
        for part in data:
            yield from _records(part)
    elif isinstance(data, dict):
        if "energy" in data and ("composition" in data or "structure" in data):
            yield data
        elif "sites" not in data:
            for part in data.values():
                if isinstance(part, list | dict):
                    yield from _records(part)


def _entry(record: dict[str, Any], path: Path) -> Any:
    from pymatgen.core.composition import Composition
    from pymatgen.core.structure import Structure
    from pymatgen.entries.computed_entries import ComputedEntry

    try:
        given = record.get("composition")
        composition = Structure.from_dict(record["structure"]).composition if given is None else Composition(given)
        energy = float(record["energy"]) + float(record.get("correction") or 0.0)
        return ComputedEntry(composition, energy, entry_id=record.get("entry_id"))
    except Exception as error:  # whatever is wrong with it
        raise ValueError(f"{path} holds an entry that cannot be read: {error}") from error
