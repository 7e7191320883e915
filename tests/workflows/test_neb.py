"""Minimum-energy paths: ASE's barrier, batches, symmetry."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc100
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.mep import NEB
from ase.optimize import BFGS
from batched import BatchedEMT
from small_models import small_calculator

from ase_andersonn.workflows.neb import nudged_elastic_band
from ase_andersonn.workflows.vacancies import vacancy_formation


def hop() -> tuple[Atoms, Atoms]:
    """A gold atom on aluminium, from one hollow site to the next."""
    initial = fcc100("Al", (2, 2, 2))
    add_adsorbate(initial, "Au", 1.7, "hollow")
    initial.center(axis=2, vacuum=4.0)
    initial.set_constraint(FixAtoms([atom.index for atom in initial if atom.tag > 1]))
    final = initial.copy()
    final[-1].x += initial.cell[0, 0] / 2
    return initial, final


def test_the_barrier_is_ases(tmp_path: Path) -> None:
    calc = BatchedEMT()
    found = nudged_elastic_band(*hop(), calc, images=3, fmax=0.02)
    assert [9, 9, 9] in calc.batches
    ends = hop()
    for end in ends:
        end.calc = EMT()
        BFGS(end, logfile=None).run(fmax=0.01)
    images = [ends[0], *(ends[0].copy() for _ in range(3)), ends[1]]
    for image in images[1:-1]:
        image.calc = EMT()
    band = NEB(images, climb=True, method="improvedtangent")
    band.interpolate(mic=True)
    BFGS(band, logfile=None).run(fmax=0.02)
    energies = [image.get_potential_energy() for image in images]
    assert found.converged
    assert found.fmax < 0.02
    assert found.barrier == pytest.approx(max(energies) - energies[0], abs=2e-3)
    assert found.reaction_energy == pytest.approx(0.0, abs=1e-4)
    np.testing.assert_allclose(found.energies, found.energies[::-1], atol=2e-3)
    assert found.coordinates[-1] > 2.0
    json.dumps(found.to_dict(), allow_nan=False)
    found.plot(tmp_path / "path.png")
    assert (tmp_path / "path.png").stat().st_size


def test_the_highest_image_climbs() -> None:
    """With an even number of images only a climbing one reaches the saddle between them."""
    held = nudged_elastic_band(*hop(), EMT(), images=2, climb=False)
    climbed = nudged_elastic_band(*hop(), EMT(), images=2, fmax=0.02)
    assert climbed.barrier > held.barrier + 0.02
    assert climbed.barrier == pytest.approx(nudged_elastic_band(*hop(), EMT(), images=3).barrier, abs=5e-3)


def test_atoms_cross_the_cells_border() -> None:
    """An atom that jumps into a vacancy through the periodic border goes the short way."""
    crystal = vacancy_formation(bulk("Cu", cubic=True), EMT(), supercell=[2, 2, 2]).vacancies[0].atoms
    initial = crystal.copy()
    hole = np.zeros(3)
    mover = int(np.argmin(np.linalg.norm(initial.positions - initial.cell.array.sum(0) * [1.0, 1.0, 0.0]
                                         + [1.8, 1.8, 0.0], axis=1)))  # fmt: skip
    final = initial.copy()
    final.positions[mover] = hole
    found = nudged_elastic_band(initial, final, EMT(), images=1)
    assert found.coordinates[-1] < 4.0
    assert 0.3 < found.barrier < 1.5


def test_equilibrium_potential_and_too_few_steps() -> None:
    initial = bulk("Si", cubic=True)[1:]
    final = initial.copy()
    final.positions[0] -= [0.5, 0.5, 0.5]
    found = nudged_elastic_band(initial, final, small_calculator(), images=2, relax_ends=False, steps=2)
    assert not found.converged
    assert found.steps == 2
    assert len(found.images) == 4


def test_what_is_refused() -> None:
    initial, final = hop()
    calc = BatchedEMT()
    with pytest.raises(ValueError, match="same order"):
        nudged_elastic_band(initial, final[::-1], calc)
    stretched = final.copy()
    stretched.cell[0] *= 1.1
    with pytest.raises(ValueError, match="different cells"):
        nudged_elastic_band(initial, stretched, calc)
    for options, words in (({"images": 0}, "images"), ({"fmax": 0}, "fmax"), ({"interpolation": "spline"}, "idpp")):
        with pytest.raises(ValueError, match=words):
            nudged_elastic_band(initial, final, calc, **options)
    assert not calc.batches
    with pytest.raises(ValueError, match="same structure"):
        nudged_elastic_band(initial, initial, calc)
