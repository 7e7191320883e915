"""Porous graphene sheets with hydrogen at their edges, labelled with GFN1-xTB (tblite): energies and forces.

python make.py --sheets 1500        (resumable: sheets that are done stay; about a second a sheet and core)

A sheet is a rectangular graphene cell with one to three round pores, stretched by up to 3 % along each axis, rattled
and rippled. Carbon atoms with one bond left are removed, those with two bonds and a missing third get a hydrogen atom;
pores too narrow for their hydrogen atoms are drawn anew. Sheet k depends on k alone, so that a set can be made in parts
and by several processes.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.neighborlist import neighbor_list

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from resumable import collect

HERE = Path(__file__).resolve().parent
BOND, CH = 1.75, 1.09
"""Å: longest carbon-carbon bond of the unstrained sheet; carbon-hydrogen bond."""
NO_ROOM = 1.7
"""Å: hydrogen atoms have nothing nearer than this but their carbon atom."""
LATTICE, VACUUM = 2.46, 12.0


def rectangular_sheet(nx: int, ny: int) -> Atoms:
    """Graphene in an orthogonal cell of 4 nx ny atoms, periodic in the plane, and across it with `VACUUM` Å between."""
    places = [[0, 0, 0.5], [0.5, 1 / 6, 0.5], [0.5, 0.5, 0.5], [0, 2 / 3, 0.5]]
    return Atoms("C4", scaled_positions=places, cell=[LATTICE, np.sqrt(3) * LATTICE, VACUUM], pbc=True) * (nx, ny, 1)


def bonds(sheet: Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both ends of each bond and the vector between them."""
    first, second, vector = neighbor_list("ijD", sheet, BOND)
    return first, second, vector


def cut_pores(sheet: Atoms, rng: np.random.Generator) -> Atoms:
    """Without the atoms in one to three circles, and without what then hangs on a single bond."""
    keep = np.ones(len(sheet), dtype=bool)
    for _ in range(rng.integers(1, 4)):
        center = rng.uniform(size=2) @ sheet.cell.array[:2]
        delta = sheet.positions - center
        scaled = np.linalg.solve(sheet.cell.array.T, delta.T).T
        scaled[:, :2] -= np.round(scaled[:, :2])
        scaled[:, 2] = 0.0
        keep &= np.linalg.norm(scaled @ sheet.cell.array, axis=1) > rng.uniform(1.0, 4.0)
    sheet = sheet[keep]
    while len(sheet):
        degree = np.bincount(bonds(sheet)[0], minlength=len(sheet))
        if (degree >= 2).all():
            break
        sheet = sheet[degree >= 2]
    return sheet


def close_edges(sheet: Atoms) -> Atoms:
    """With a hydrogen atom opposite to the two bonds of each carbon atom that has lost its third."""
    first, _, vector = bonds(sheet)
    degree = np.bincount(first, minlength=len(sheet))
    outward = np.zeros((len(sheet), 3))
    np.add.at(outward, first, -vector)
    edge = degree == 2
    outward = outward[edge] / np.linalg.norm(outward[edge], axis=1)[:, None]
    return sheet + Atoms(f"H{edge.sum()}", positions=sheet.positions[edge] + CH * outward)


def has_room(sheet: Atoms) -> bool:
    """Whether every hydrogen atom is near one carbon atom only, and far from the other hydrogen atoms."""
    hydrogen = np.flatnonzero(sheet.numbers == 1)
    first = neighbor_list("i", sheet, NO_ROOM)
    return bool((np.bincount(first, minlength=len(sheet))[hydrogen] == 1).all())


def make_sheet(index: int) -> Atoms:
    """The sheet of that number."""
    rng = np.random.default_rng([2024, index])
    while True:
        sheet = cut_pores(rectangular_sheet(int(rng.integers(3, 6)), int(rng.integers(2, 4))), rng)
        if len(sheet) < 12:
            continue
        sheet = close_edges(sheet)
        if has_room(sheet):
            break
    strain = np.eye(3)
    strain[:2, :2] += rng.uniform(-0.03, 0.03, (2, 2))
    sheet.set_cell(sheet.cell.array @ (0.5 * (strain + strain.T)), scale_atoms=True)
    wave = 2 * np.pi * sheet.get_scaled_positions() @ [*rng.integers(-1, 2, 2), 0] + rng.uniform(0, 2 * np.pi)
    sheet.positions[:, 2] += rng.uniform(0.0, 0.4) * np.sin(wave)
    sheet.positions += rng.normal(scale=rng.choice([0.02, 0.05, 0.1]), size=sheet.positions.shape)
    return sheet


def label(sheet: Atoms) -> Atoms:
    """The sheet with its GFN1-xTB energy and forces."""
    from tblite.ase import TBLite

    sheet.calc = TBLite(method="GFN1-xTB", verbosity=0, max_iterations=500)
    energy, forces = sheet.get_potential_energy(), sheet.get_forces()
    sheet.calc = SinglePointCalculator(sheet, energy=energy, forces=forces)
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheets", type=int, default=1500)
    parser.add_argument("--first", type=int, default=0, help="number of the first sheet")
    parser.add_argument("--output", type=Path, default=HERE / "sheets.extxyz")
    args = parser.parse_args()
    collect(args.output, range(args.first, args.first + args.sheets), "sheet", lambda index: label(make_sheet(index)))


if __name__ == "__main__":
    main()
