"""Surface energies: broken bonds that can be counted, ASE's own slabs, all terminations."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.optimize import BFGS
from batched import BatchedEMT
from small_models import small_calculator

from ase_andersonn.workflows.surface import surface_energy

LENGTH = 2 ** (1 / 6) * 3.4


def pairs() -> LennardJones:
    """Bonds of nearest neighbours at their minimum only."""
    return LennardJones(sigma=3.4, epsilon=0.0104, rc=1.3 * LENGTH)


@pytest.mark.parametrize(
    ("miller", "broken", "area"), [((1, 1, 1), 3, 3**0.5 / 2), ((1, 0, 0), 4, 1), ((1, 1, 0), 6, 2**0.5)]
)
def test_broken_bonds_are_counted(miller: tuple[int, int, int], broken: int, area: float) -> None:
    bond = 0.0104 * (1 + 4 * ((3.4 / (1.3 * LENGTH)) ** 12 - (3.4 / (1.3 * LENGTH)) ** 6))
    found = surface_energy(
        bulk("Ar", a=np.sqrt(2) * LENGTH), pairs(), miller, relax_bulk=False, relax_slabs=False, thicknesses=3
    )
    (cut,) = found.terminations
    assert cut.energy == pytest.approx(broken * bond / 2 / (area * LENGTH**2), rel=1e-6)
    assert cut.energy_joule == pytest.approx(cut.energy * 16.0218, rel=1e-4)
    assert cut.energy == cut.unrelaxed
    assert cut.bulk_energy == pytest.approx(found.bulk_energy, rel=1e-6)
    assert (cut.symmetric, cut.warning) == (True, None)
    assert cut.error < 1e-9


def test_copper_is_ases_slab(tmp_path: Path) -> None:
    calc = BatchedEMT()
    found = surface_energy(bulk("Cu"), calc, (1, 1, 1), thicknesses=3, fmax=0.005)
    a = (4 * found.atoms.get_volume() / len(found.atoms)) ** (1 / 3)
    energies = []
    for layers in (6, 8):
        slab = fcc111("Cu", (1, 1, layers), a=a, vacuum=8.0)
        slab.pbc = True
        slab.calc = EMT()
        with BFGS(slab, logfile=None) as search:
            search.run(fmax=0.005)
        energies.append(slab.get_potential_energy())
    area = float(np.linalg.norm(np.cross(*slab.cell.array[:2])))
    own = (energies[0] - 6 * (energies[1] - energies[0]) / 2) / (2 * area)
    assert found.energy == pytest.approx(own, abs=2e-5)
    assert found.energy < found.terminations[0].unrelaxed
    assert max(len(batch) for batch in calc.batches) == 4  # the crystal and three slabs
    json.dumps(found.to_dict(), allow_nan=False)
    found.plot(tmp_path / "surface.png")


def test_all_terminations_are_found() -> None:
    """A diamond lattice is cut between double layers, or within them, three times as many bonds."""
    silicon = bulk("Si", a=5.43)
    calc = LennardJones(sigma=5.43 * 3**0.5 / 4 / 2 ** (1 / 6), epsilon=1.0, rc=3.0)
    found = surface_energy(silicon, calc, (1, 1, 1), relax_bulk=False, relax_slabs=False, thicknesses=2)
    assert len(found.terminations) == 2
    low, high = (cut.energy for cut in found.terminations)
    assert high == pytest.approx(3 * low, rel=1e-6)
    assert np.isnan(found.terminations[0].error)


def test_the_equilibrium_potential() -> None:
    found = surface_energy(
        bulk("Si"), small_calculator(), (1, 0, 0), thicknesses=2, min_thickness=3.0, relax_bulk=False, fmax=5.0
    )
    assert np.isfinite(found.energy)


def test_what_is_refused() -> None:
    calc = BatchedEMT()
    for miller in ((0, 0, 0), (1, 1), "111", (1.0, 0, 0)):
        with pytest.raises(ValueError, match="three whole numbers"):
            surface_energy(bulk("Cu"), calc, miller)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="three directions"):
        surface_energy(molecule("CO"), calc, (1, 0, 0))
    with pytest.raises(ValueError, match="thicknesses is 1"):
        surface_energy(bulk("Cu"), calc, (1, 0, 0), thicknesses=1)
    with pytest.raises(ValueError, match="vacuum"):
        surface_energy(bulk("Cu"), calc, (1, 0, 0), vacuum=0.0)
    with pytest.raises(ValueError, match="apart"):
        surface_energy(Atoms("Cu2", cell=[3, 3, 3], pbc=True), calc, (1, 0, 0))
    assert not calc.batches


@pytest.mark.parametrize(
    ("crystal", "miller", "polar"),
    [
        (bulk("MgO", "rocksalt", 4.2), (1, 1, 1), True),
        (bulk("MgO", "rocksalt", 4.2), (1, 0, 0), False),
        (bulk("ZnS", "zincblende", 5.4), (1, 1, 0), False),
        (bulk("ZnS", "zincblende", 5.4), (1, 1, 1), True),
        (bulk("Si"), (1, 1, 1), False),
    ],
)
def test_polar_surfaces_are_named(crystal: Atoms, miller: tuple[int, int, int], polar: bool) -> None:
    calc = LennardJones(sigma=2.0, epsilon=0.1, rc=4.0)  # whatever it says: polarity is a matter of the cut
    options = {"relax_bulk": False, "relax_slabs": False, "thicknesses": 2}
    found = surface_energy(crystal, calc, miller, **options)
    assert {cut.polar for cut in found.terminations} == {polar}
    if polar:
        assert all("polar by the usual oxidation states" in str(cut.warning) for cut in found.terminations)
