"""Base structures: crystals of packed sets and of benchmarks, prototypes of elements and alloys, dimers, molecules.

A base is a name, a tag and a function that draws its structure: crystals are what they are, prototypes have a random
lattice constant and random species.
"""

import gzip
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.collections import g2
from ase.data import chemical_symbols, covalent_radii
from split import formula, held_out

Draw = Callable[[np.random.Generator], Atoms]
ELEMENTS = frozenset(range(1, 84)) | frozenset(range(89, 95))
"""H to Bi and Ac to Pu: what MatPES knows."""
METALS = frozenset(Atoms("LiBeNaMgAlKCaScTiVCrMnFeCoNiCuZnGaRbSrYZrNbMoRuRhPdAgCdInSn").numbers) | frozenset(
    Atoms("CsBaLaCeNdGdHfTaWReOsIrPtAuHgTlPbBi").numbers
)
"""What random alloys are made of."""
NEIGHBOUR = {"fcc": 0.5**0.5, "bcc": 3**0.5 / 2, "sc": 1.0, "diamond": 3**0.5 / 4, "hcp": 1.0}
"""Distance of nearest neighbours in lattice constants."""
BOX = 9.0
"""Å: what a dimer has around it."""
MOST_ATOMS = 24
"""Crystals with more atoms are left out."""


class Base(NamedTuple):
    """What structures are drawn from; crystals also give defects, slabs, substitutions and short contacts."""

    name: str
    tag: str
    draw: Draw
    crystal: bool = False


def packed_crystals(path: Path) -> Iterator[Atoms]:
    """Crystals of a file of arrays: `cell` [n, 3, 3] Å, `n_atoms` [n], and of all atoms `numbers` and `frac`."""
    with np.load(path) as data:
        n_atoms, numbers, frac, cell = (data[name] for name in ("n_atoms", "numbers", "frac", "cell"))
    offset = np.concatenate([[0], np.cumsum(n_atoms, dtype=np.int64)])
    for k, own in enumerate(map(slice, offset[:-1], offset[1:])):
        yield Atoms(numbers[own], scaled_positions=frac[own], cell=cell[k], pbc=True)


def benchmark_crystals(path: Path) -> Iterator[Atoms]:
    """Crystals of a benchmark of MatCalc: entries with `structure`, a pymatgen dictionary; maybe gzipped."""
    content = path.read_bytes()
    for entry in json.loads(gzip.decompress(content) if path.suffix == ".gz" else content):
        structure = entry["structure"]
        sites = structure["sites"]
        symbols = [site["species"][0]["element"] for site in sites]
        places = [site["abc"] for site in sites]
        yield Atoms(symbols, scaled_positions=places, cell=structure["lattice"]["matrix"], pbc=True)


def crystals(path: Path) -> list[Base]:
    """The crystals of a file in random order; the tag is the file's name up to `_`, and `binary` for a benchmark.

    Raises:
        ValueError: for a file of another kind.
    """
    if path.suffix == ".npz":
        tag, found = path.stem.split("_")[0], list(packed_crystals(path))
    elif ".json" in path.suffixes:
        tag, found = "binary", list(benchmark_crystals(path))
    else:
        raise ValueError(f"{path} is neither .npz (cell, n_atoms, numbers, frac) nor .json or .json.gz of MatCalc.")
    order = np.random.default_rng(5).permutation(len(found))
    return [Base(formula(found[k]), tag, partial(as_it_is, found[k]), crystal=True) for k in order]


def as_it_is(atoms: Atoms, _: np.random.Generator) -> Atoms:
    return atoms.copy()


def lattice(kind: str, nearest: float) -> Atoms:
    """A small cell with right angles of one species, its nearest neighbours this far apart, Å."""
    if kind == "hcp":
        return bulk("Mg", "hcp", a=nearest, c=nearest * (8 / 3) ** 0.5, orthorhombic=True)
    return bulk("Cu", kind, a=nearest / NEIGHBOUR[kind], cubic=True)


def element(number: int, rng: np.random.Generator) -> Atoms:
    """An element in one of five lattices, 12 % denser to 20 % wider than the covalent radius says."""
    atoms = lattice(str(rng.choice(list(NEIGHBOUR))), 2 * covalent_radii[number] * rng.uniform(0.88, 1.2))
    atoms.numbers[:] = number
    return atoms


def alloy(species: Sequence[int], rng: np.random.Generator) -> Atoms:
    """Two to five metals at random on the places of a close-packed or bcc lattice."""
    some = rng.choice(species, min(len(species), int(rng.integers(2, 6))), replace=False)
    kind = str(rng.choice(["fcc", "bcc", "hcp"]))
    nearest = 2 * float(np.mean(covalent_radii[some])) * rng.uniform(0.92, 1.12)
    atoms = lattice(kind, nearest) * ((2, 2, 1) if kind == "bcc" else (2, 1, 1))
    atoms.numbers = rng.choice(some, len(atoms))
    return atoms


def dimer(number: int, species: Sequence[int], rng: np.random.Generator) -> Atoms:
    """Two atoms in a box, 0.55 to 1.7 sums of the covalent radii apart."""
    other = int(rng.choice(species))
    apart = (covalent_radii[number] + covalent_radii[other]) * rng.uniform(0.55, 1.7)
    return Atoms([number, other], [[0, 0, 0], [0, 0, apart]], cell=[BOX, BOX, BOX + apart], pbc=True)


def g2_molecule(name: str, rng: np.random.Generator) -> Atoms:
    """A small molecule in a box, its atoms moved at random."""
    atoms = molecule(name, vacuum=4.0)
    atoms.positions += rng.normal(0, rng.choice([0.005, 0.02, 0.06, 0.12]), atoms.positions.shape)
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)


def prototypes(species: Collection[int], *, elements: int, dimers: int, alloys: int, molecules: int) -> Iterator[Base]:
    """So many bases of each element in lattices, of each in dimers, of alloys in all, and of each molecule."""
    known, metals = sorted(species), sorted(METALS & set(species))
    for number in known:
        name = chemical_symbols[number]
        yield from [Base(name, "element", partial(element, number))] * elements
        yield from [Base(f"{name}-", "dimer", partial(dimer, number, known))] * dimers
    if len(metals) > 1:
        yield from [Base("alloy", "alloy", partial(alloy, metals))] * alloys
    for name in g2.names:
        atoms = molecule(name)
        if len(atoms) > 1 and set(atoms.numbers) <= set(species):
            yield from [Base(name, "molecule", partial(g2_molecule, name))] * molecules


def benchmark_formulas(paths: Iterable[Path]) -> frozenset[str]:
    """The quarter of the formulas of these benchmarks that no part of the set may hold."""
    return held_out(formula(atoms) for path in paths for atoms in benchmark_crystals(path))


def fits(base: Base, species: Collection[int], forbidden: Collection[str]) -> bool:
    """Whether a crystal is small, of these species, and not held out; what is no crystal is tested when drawn."""
    if not base.crystal:
        return True
    atoms = base.draw(np.random.default_rng(0))
    return len(atoms) <= MOST_ATOMS and set(atoms.numbers) <= set(species) and base.name not in forbidden
