"""The packaged universal potential: any elements, minima where PBE has them, no structure without a fixed point."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.data import chemical_symbols

from ase_andersonn import AndersoNN
from ase_andersonn.pretrained.catalog import PRETRAINED, packaged_models

pytestmark = [
    pytest.mark.skipif("universal" not in packaged_models(), reason="the universal potential is not packaged"),
    pytest.mark.filterwarnings("ignore"),
]
PBE = {
    "Al": ("fcc", 4.041),
    "Cu": ("fcc", 3.632),
    "Au": ("fcc", 4.154),
    "Fe": ("bcc", 2.833),
    "W": ("bcc", 3.185),
    "Si": ("diamond", 5.472),
    "C": ("diamond", 3.575),
    "NaCl": ("rocksalt", 5.702),
    "MgO": ("rocksalt", 4.261),
    "GaAs": ("zincblende", 5.750),
}
"""Lattice constants, Å: Haas, Tran and Blaha, Phys. Rev. B 79, 085104 (2009)."""


@pytest.fixture(scope="module")
def calc() -> AndersoNN:
    return AndersoNN("universal", compile=False)


def test_it_knows_89_elements_in_less_than_ten_megabytes(calc: AndersoNN) -> None:
    assert len(calc.model.elements) == 89
    assert {"H", "O", "Fe", "Cs", "Au", "U"} <= {chemical_symbols[z] for z in calc.model.elements}
    assert (PRETRAINED / "universal.safetensors").stat().st_size < 10e6


def test_ten_solids_have_their_minimum(calc: AndersoNN) -> None:
    """Lattice constants within 3 % of PBE's, 1 % in the mean."""
    scales = np.linspace(0.96, 1.04, 17)
    wrong = []
    for name, (lattice, a) in PBE.items():
        cells = [bulk(name, lattice, a=a * scale, cubic=True) for scale in scales]
        energies = [found["energy"] for found in calc.evaluate(cells, forces=False)]
        lowest = int(np.argmin(energies))
        assert 0 < lowest < len(scales) - 1, name
        wrong.append(abs(scales[lowest] - 1.0))
    assert max(wrong) < 0.03
    assert np.mean(wrong) < 0.01


def test_random_compositions_and_densities_converge(calc: AndersoNN) -> None:
    rng = np.random.default_rng(0)
    structures = []
    for _ in range(60):
        n = int(rng.integers(2, 12))
        numbers = rng.choice(calc.model.elements, n)
        side = (n * rng.uniform(4.0, 60.0)) ** (1 / 3)
        structures.append(Atoms(numbers, scaled_positions=rng.random((n, 3)), cell=[side] * 3, pbc=True))
    found = calc.evaluate(structures, forces=True)
    assert all(np.isfinite(row["energy"]) and np.isfinite(row["forces"]).all() for row in found)
