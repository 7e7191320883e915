"""Vacancies: the same energy one by one, by symmetry, and with reservoirs."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.optimize import BFGS
from batched import BatchedEMT
from small_models import small_calculator

from ase_andersonn.workflows.relax import relax
from ase_andersonn.workflows.vacancies import vacancy_formation


def alloy() -> Atoms:
    atoms = bulk("Cu", cubic=True, a=3.75)
    atoms.symbols[0] = "Au"  # Cu3Au
    return atoms


def test_copper_one_by_one(tmp_path: Path) -> None:
    found = vacancy_formation(bulk("Cu", cubic=True), EMT(), supercell=[2, 2, 2])
    (vacancy,) = found.vacancies
    perfect = found.atoms * (2, 2, 2)
    perfect.calc = EMT()
    missing = perfect[1:]
    missing.calc = EMT()
    whole, first = perfect.get_potential_energy(), missing.get_potential_energy()
    with BFGS(missing, logfile=None) as search:
        search.run(fmax=0.01)
    assert vacancy.formation_energy == pytest.approx(missing.get_potential_energy() - whole * 31 / 32, abs=1e-3)
    assert vacancy.unrelaxed == pytest.approx(first - whole * 31 / 32, abs=1e-6)
    assert vacancy.formation_energy < vacancy.unrelaxed
    assert (vacancy.symbol, vacancy.multiplicity, len(vacancy.atoms)) == ("Cu", 4, 31)
    json.dumps(found.to_dict(), allow_nan=False)
    found.plot(tmp_path / "vacancies.png")
    assert (tmp_path / "vacancies.png").stat().st_size


def test_pairs_lose_their_bonds() -> None:
    """Of pairs of nearest neighbours at their minimum: twelve bonds are broken and six regained by the atom, 6ε."""
    length = 2 ** (1 / 6) * 3.4
    calc = LennardJones(sigma=3.4, epsilon=0.0104, rc=1.3 * length)
    shift = 0.0104 * 4 * ((3.4 / (1.3 * length)) ** 12 - (3.4 / (1.3 * length)) ** 6)
    found = vacancy_formation(bulk("Ar", a=np.sqrt(2) * length), calc, supercell=[3, 3, 3], relax_cell=False, fmax=1e-3)
    assert found.vacancies[0].unrelaxed == pytest.approx(6 * (0.0104 + shift), rel=1e-6)


def test_sites_that_symmetry_distinguishes() -> None:
    calc = BatchedEMT()
    own = {symbol: relax(bulk(symbol), EMT()).energy for symbol in ("Cu", "Au")}
    found = vacancy_formation(alloy(), calc, chemical_potentials=own, supercell=[2, 2, 2])
    assert {(v.symbol, v.multiplicity) for v in found.vacancies} == {("Au", 1), ("Cu", 3)}
    assert [31, 31] in calc.batches
    shifted = vacancy_formation(alloy(), EMT(), chemical_potentials={**own, "Cu": own["Cu"] + 1}, supercell=[2, 2, 2])
    difference = [
        b.formation_energy - a.formation_energy for a, b in zip(found.vacancies, shifted.vacancies, strict=True)
    ]
    np.testing.assert_allclose(difference, [v.symbol == "Cu" for v in found.vacancies], atol=1e-3)


def test_every_supercell() -> None:
    """The atom taken out is the site's in any supercell, and for every index in the cell."""
    atoms = alloy()[[1, 2, 0, 3]]
    matrix = [[2, 0, 0], [1, 2, 0], [0, 0, 2]]
    own = {"Cu": 0.0, "Au": 0.0}
    found = vacancy_formation(atoms, EMT(), chemical_potentials=own, supercell=matrix, relax_cell=False, fmax=1.0)
    for vacancy in found.vacancies:
        assert vacancy.atoms.symbols.count(vacancy.symbol) == 8 * vacancy.multiplicity - 1
        assert atoms.symbols[vacancy.site] == vacancy.symbol


def test_equilibrium_potential() -> None:
    found = vacancy_formation(bulk("Si"), small_calculator(), supercell=[2, 2, 2], relax_cell=False, fmax=5.0)
    assert len(found.vacancies) == 1


def test_what_is_refused() -> None:
    calc = BatchedEMT()
    with pytest.raises(ValueError, match="no entry for Au, Cu"):
        vacancy_formation(alloy(), calc)
    with pytest.raises(ValueError, match="no entry for Cu"):
        vacancy_formation(alloy(), calc, chemical_potentials={"Au": 0.0})
    with pytest.raises(ValueError, match="three directions"):
        vacancy_formation(molecule("CO"), calc)
    with pytest.raises(ValueError, match="supercell"):
        vacancy_formation(bulk("Cu"), calc, supercell=[1, 1])
    assert not calc.batches
