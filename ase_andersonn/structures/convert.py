"""Conversion of other projects' structures to ase.Atoms, and checks that a structure has a finite energy.

pymatgen and phonopy objects are recognised by the module of their class, and the packages imported only for them.
"""

from typing import Any

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from .metadata import check_order
from .neighbors import Edges, neighbor_edges

SAME_SITE = 1e-3  # Å
TOO_CLOSE = 0.35
"""Share of the sum of two covalent radii: no real pair of atoms is closer, but all are in a structure given in nm."""


COPY_DISTANCE = 0.1
"""Å; closer atoms are taken for copies of one atom. Bonds in nm interpreted as Å are hardly shorter."""


class SameSiteError(ValueError):
    """Two atoms are on one site, where the energy is not defined."""


FLAT = 1e-6  # volume over the product of edge lengths


def to_atoms(structure: Any) -> Atoms:
    """Convert a structure to ase.Atoms.

    Args:
        structure: ase.Atoms (returned as it is), pymatgen Structure or Molecule, or PhonopyAtoms.

    Raises:
        TypeError: for anything else.
        ValueError: for a pymatgen structure with partial or mixed occupancies.
    """
    if isinstance(structure, Atoms):
        return structure
    libraries = {cls.__module__.split(".")[0] for cls in type(structure).__mro__}
    if "pymatgen" in libraries and hasattr(structure, "is_ordered"):
        return _from_pymatgen(structure)
    if "phonopy" in libraries and hasattr(structure, "scaled_positions"):
        return _from_phonopy(structure)
    given = f"{type(structure).__module__}.{type(structure).__qualname__}"
    raise TypeError(
        f"a structure is ase.Atoms, a pymatgen Structure or Molecule, or PhonopyAtoms; {given} was given. "
        "Read files with ase.io.read."
    )


def _from_pymatgen(structure: Any) -> Atoms:
    if not structure.is_ordered:
        partial = [site.species_string for site in structure if not site.is_ordered]
        raise ValueError(
            f"{structure.formula} has {len(partial)} disordered sites, shared by several species or partly empty "
            f"({'; '.join(partial[:3])}); a model needs one atom per site. "
            "Make it ordered first, for example with pymatgen's OrderDisorderedStructureTransformation."
        )
    from pymatgen.io.ase import AseAtomsAdaptor

    try:
        atoms: Atoms = AseAtomsAdaptor.get_atoms(structure, msonable=False)
        spins = [getattr(site.specie, "spin", None) or 0.0 for site in structure]
        if any(spins) and not atoms.has("initial_magmoms"):
            atoms.set_initial_magnetic_moments(spins)
    except Exception as error:  # such as magnetic moments that are not numeric
        why = f"{type(error).__name__}: {error}"
        raise ValueError(f"{structure.formula} cannot be made into ase.Atoms: {why}") from error
    if charge := getattr(structure, "charge", 0.0):
        atoms.info.setdefault("charge", float(charge))
    if (multiplicity := getattr(structure, "spin_multiplicity", None)) is not None:
        atoms.info.setdefault("spin_multiplicity", multiplicity)
    return atoms


def _from_phonopy(structure: Any) -> Atoms:
    return Atoms(
        numbers=structure.numbers,
        scaled_positions=structure.scaled_positions,
        cell=structure.cell,
        masses=structure.masses,
        magmoms=structure.magnetic_moments,
        pbc=True,
    )


def check_atoms(atoms: Atoms, *, sites: bool = True) -> None:
    """Raise ValueError for a structure without a defined energy.

    These are empty structures, positions or cells that are not finite, periodic cell vectors that are linearly
    dependent, disordered structures, and, unless ``sites`` is False, two atoms on one site.
    """
    if len(atoms) == 0:
        raise ValueError("the structure has no atoms.")
    check_order(atoms)
    positions, cell, pbc = atoms.positions, atoms.cell.array, atoms.pbc
    if not np.isfinite(positions).all():
        wrong = np.flatnonzero(~np.isfinite(positions).all(1))
        raise ValueError(f"positions of atoms {_some(wrong)} are not finite; check the step that moved them.")
    if not np.isfinite(cell).all():
        raise ValueError(f"the cell is not finite: {cell.tolist()}; check the step that changed it.")
    if pbc.any():
        _check_periodic(cell[pbc], np.flatnonzero(pbc))
    if sites:
        check_sites(neighbor_edges(positions, cell, pbc, 0.5))


def check_sites(edges: Edges, numbering: Any = None) -> None:
    """Raise `SameSiteError` if two atoms share a site, |d| < 1e-3 Å.

    Args:
        edges: edges of a structure.
        numbering: int64 [n_atoms], indices of the atoms in the message; None for their own.
    """
    x, y, z = edges.vectors.T
    d2 = x * x + y * y + z * z
    if d2.min(initial=1.0) < SAME_SITE**2:
        e = int(d2.argmin())
        who = _pair(edges, e, numbering)
        raise SameSiteError(f"{who} are {d2[e] ** 0.5:.1e} Å apart, less than {SAME_SITE} Å; remove or move one.")


def check_lengths(numbers: Any, edges: Edges) -> None:
    """Raise ValueError, with a probable cause, if a distance is below `TOO_CLOSE` sums of covalent radii.

    Args:
        numbers: int64 [n_atoms], atomic numbers.
        edges: edges of the structure.
    """
    share = touching_shares(numbers, edges)
    if share.min(initial=1.0) < TOO_CLOSE:
        e = int(share.argmin())
        length = np.linalg.norm(edges.vectors[e])
        raise ValueError(
            f"{_pair(edges, e)} are {length:.2g} Å apart, {share[e]:.2g} of the sum of their covalent radii; less "
            f"than {TOO_CLOSE:g} is not known of any. {_why_close(numbers, edges, share < TOO_CLOSE)}"
        )


def _why_close(numbers: Any, edges: Edges, close: Any) -> str:
    """Probable cause of atoms that are too close, from the groups that they form.

    With lengths in another unit all atoms are close to each other or to their own images; with rounded coordinates,
    such as 0.333 for 1/3, symmetry gives several nearby copies of an atom instead of one.
    """
    from scipy.sparse import coo_array  # the import takes a tenth of a second
    from scipy.sparse.csgraph import connected_components

    i, j = edges.center[close], edges.other[close]
    pairs = coo_array((np.ones(len(i)), (i, j)), shape=(len(numbers), len(numbers)))
    n_groups = connected_components(pairs, directed=False, return_labels=False)
    twice = bool((numbers[i] == numbers[j]).all()) and bool((i != j).all())
    lengths = np.linalg.norm(edges.vectors[close], axis=1)
    if twice and (n_groups > 1 or lengths.max() < COPY_DISTANCE):
        return (
            "Is an atom there more than once, as where fractional coordinates were rounded (0.333 for 1/3), so that "
            "symmetry made copies beside each other, or where all alternatives of a disordered site were kept? Give "
            "the coordinates with more digits, or remove copies with ase.geometry.get_duplicate_atoms(atoms, "
            f"cutoff={np.ceil(100 * lengths.max() + 1) / 100:g}, delete=True)."
        )
    if n_groups > 1 and len(np.unique(i)) < 0.5 * len(numbers):
        return (
            "Most others are not: is one of these too many, as of a site that two species share, or did they collide?"
        )
    return (
        "Are the lengths in Å, and not in nm or fractions of the cell (scaled_positions)? "
        + "Or is one atom there twice?" * (twice and n_groups < len(numbers) == 2)
    ).rstrip()


def touching_shares(numbers: Any, edges: Edges) -> Any:
    """Lengths of the edges relative to the sums of covalent radii [n_edges]."""
    touching = covalent_radii[numbers[edges.center]] + covalent_radii[numbers[edges.other]]
    return np.linalg.norm(edges.vectors, axis=1) / touching


def _pair(edges: Edges, e: int, numbering: Any = None) -> str:
    """Description of the two atoms of an edge."""
    i, j = (int(x if numbering is None else numbering[x]) for x in (edges.center[e], edges.other[e]))
    return f"atom {i} and its own periodic image" if i == j else f"atoms {min(i, j)} and {max(i, j)}"


def _check_periodic(vectors: Any, axes: Any) -> None:
    gram = vectors @ vectors.T
    squares = gram.diagonal()
    if not squares.all():
        zero = " and ".join("abc"[k] for k in axes[squares == 0.0])
        raise ValueError(f"pbc is set along {zero}, where the cell vector is zero; set the vector or clear pbc.")
    if np.linalg.det(gram) <= FLAT**2 * squares.prod():
        raise ValueError(
            f"the periodic cell vectors {vectors.tolist()} Å span no volume; correct the cell or clear pbc."
        )


def _some(indices: Any) -> str:
    shown = ", ".join(str(int(i)) for i in indices[:5])
    return shown if len(indices) <= 5 else f"{shown} and {len(indices) - 5} more"
