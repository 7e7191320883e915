"""Duplicates among crystals, by pymatgen's StructureMatcher.

S. P. Ong et al., Comput. Mater. Sci. 68, 314 (2013): primitive cells, scaled to one volume, are laid on each other.
Only crystals of one reduced formula whose volumes per atom lie close are compared, so that the cost does not grow with
the square of the number of structures.
"""

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping

from ase import Atoms

MAX_VOLUME_RATIO = 1.1
"""Ratio of neighbouring volumes per atom above which crystals are not compared."""


def duplicates(structures: Mapping[int, Atoms]) -> dict[int, int]:
    """Map each duplicate to the first structure it duplicates.

    Args:
        structures: by index; only those periodic in three directions are compared.
    """
    found: dict[int, int] = {}
    for indices in _comparable(structures):
        if len(indices) > 1:
            for group in _groups(indices, structures):
                found |= dict.fromkeys(group[1:], group[0])
    return found


def _comparable(structures: Mapping[int, Atoms]) -> Iterator[list[int]]:
    """Indices, ascending, of crystals with one reduced formula and volumes without a gap between them."""
    by_formula: dict[str, list[int]] = defaultdict(list)
    for index, atoms in structures.items():
        if atoms.pbc.all():
            by_formula[reduced_formula(atoms)].append(index)
    for indices in by_formula.values():
        cluster: list[int] = []
        before = 0.0
        for index in sorted(indices, key=lambda k: (_volume(structures[k]), k)):
            volume = _volume(structures[index])
            if cluster and volume > MAX_VOLUME_RATIO * before:
                yield sorted(cluster)
                cluster = []
            cluster.append(index)
            before = volume
        yield sorted(cluster)


def _groups(indices: list[int], structures: Mapping[int, Atoms]) -> list[list[int]]:
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core.structure import Structure

    crystals = []
    for index in indices:
        atoms = structures[index]
        kept = {"index": [index] * len(atoms)}
        crystals.append(
            Structure(
                atoms.cell.array, atoms.get_chemical_symbols(), atoms.get_scaled_positions(), site_properties=kept
            )
        )
    groups = StructureMatcher().group_structures(crystals)
    return [sorted(crystal.site_properties["index"][0] for crystal in group) for group in groups]


def reduced_formula(atoms: Atoms) -> str:
    """As pymatgen writes it, `NaCl` for Na4Cl4."""
    from pymatgen.core.composition import Composition

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that noble gases have no electronegativity, by which elements are ordered
        return str(Composition(atoms.get_chemical_formula()).reduced_formula)


def _volume(atoms: Atoms) -> float:
    return float(atoms.cell.volume) / len(atoms)
