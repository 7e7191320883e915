"""Quasi-harmonic crystals: laws of thermodynamics, and an analytic one."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from batched import BatchedEMT

from ase_andersonn.workflows.phonons import phonons
from ase_andersonn.workflows.quasi_harmonic import QuasiHarmonic, quasi_harmonic

CHEAP = {"supercell": [2, 2, 2], "mesh": 20.0, "points": 7}


@pytest.fixture(scope="module")
def copper() -> QuasiHarmonic:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return quasi_harmonic(bulk("Cu"), BatchedEMT(), max_temperature=500.0, **CHEAP)


def test_laws_of_thermodynamics(copper: QuasiHarmonic) -> None:
    t, v = copper.temperatures, copper.volumes
    assert (t[0], t[-1], len(t)) == (0.0, 500.0, 51)
    assert copper.stable
    assert v[0] > copper.atoms.cell.volume  # zero-point expansion
    np.testing.assert_allclose(copper.thermal_expansion[5:], np.gradient(np.log(v), t)[5:], rtol=0.02)
    assert copper.thermal_expansion[0] == pytest.approx(0.0, abs=1e-7)
    # C_p − C_v = T V α² B
    plain = phonons(bulk("Cu"), EMT(), supercell=[2, 2, 2], mesh=20.0, temperatures=[300.0], points=5)
    k = list(t).index(300.0)
    excess = (
        300.0
        * v[k]
        * copper.thermal_expansion[k] ** 2
        * copper.bulk_modulus[k]
        * units.GPa
        / units.kJ
        * 1e3
        * units.mol
    )
    assert copper.heat_capacity[k] - plain.heat_capacity[0] == pytest.approx(excess, abs=0.4)
    assert 1.5 < copper.gruneisen[k] < 3.0
    assert np.isnan(copper.gruneisen[0])
    entropy = -np.gradient(copper.gibbs_energy, t)
    heat = t * np.gradient(entropy, t) / units.kJ * 1e3 * units.mol
    np.testing.assert_allclose(copper.heat_capacity[15:-3], heat[15:-3], rtol=0.05)  # C_p = −T d²G/dT²


def test_in_another_cell_and_under_pressure(copper: QuasiHarmonic, tmp_path: Path) -> None:
    pressure = 5 * units.GPa
    pressed = quasi_harmonic(bulk("Cu"), EMT(), max_temperature=300.0, pressure=pressure, **CHEAP)
    assert pressed.volumes[-1] < copper.volumes[30]
    assert pressed.volumes[30] / copper.volumes[30] - 1 == pytest.approx(
        -pressure / units.GPa / copper.bulk_modulus[30], abs=6e-3
    )
    assert pressed.thermal_expansion[30] < copper.thermal_expansion[30]
    json.dumps(copper.to_dict(), allow_nan=False)
    copper.plot(tmp_path / "qha.png")
    assert (tmp_path / "qha.png").stat().st_size


def test_classical_nuclei(copper: QuasiHarmonic) -> None:
    """Dulong and Petit's heat capacity but for the expansion; the quantum volume from above as 1/T."""
    found = quasi_harmonic(bulk("Cu"), BatchedEMT(), max_temperature=500.0, classical=True, **CHEAP)
    np.testing.assert_allclose(found.heat_capacity[5:15], 3 * 8.314, rtol=0.03)
    more = (copper.volumes / found.volumes - 1)[[10, 20, 40]]
    assert more[0] > more[1] > more[2] > 0.0
    assert more[1] / more[2] == pytest.approx(2.0, rel=0.15)


def test_gruneisen_parameter_of_springs() -> None:
    """γ = −d ln ω / d ln V; the mean ω² of a crystal of pairs is as V″ + 2V′/r."""
    length = 2 ** (1 / 6) * 3.4
    calc = LennardJones(sigma=3.4, epsilon=1.0, rc=1.3 * length)  # so deep that it hardly expands
    found = quasi_harmonic(
        bulk("Ar", a=np.sqrt(2) * length), calc, max_temperature=100.0, **CHEAP, volumes=(0.96, 1.06)
    )
    # V = ε (x⁻¹² − 2x⁻⁶), x = r/r₀: at x = 1, d ln(V″ + 2V′/x)/d ln x = −21 + 2; ω ∝ sqrt, d ln x = d ln V / 3
    assert found.gruneisen[-1] == pytest.approx(19 / 6, rel=0.1)


def test_warnings_and_refused_input() -> None:
    with pytest.raises(ValueError, match="wider `volumes`"):
        quasi_harmonic(bulk("Cu"), EMT(), max_temperature=400.0, **CHEAP, volumes=(0.98, 1.005))
    for options, words in (
        ({"points": 4}, "points"),
        ({"max_temperature": 0.0}, "max_temperature"),
        ({"volumes": (1.1, 0.9)}, "volumes"),
        ({"pressure": float("nan")}, "pressure"),
    ):
        with pytest.raises(ValueError, match=words):
            quasi_harmonic(bulk("Cu"), EMT(), **options)
    with pytest.raises(ValueError, match="three directions"):
        quasi_harmonic(molecule("CO"), EMT())
