"""Equations of state: analytic ones returned exactly, the range chosen, other fits."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.eos import EquationOfState as AseEOS
from ase.units import GPa
from batched import BatchedEMT
from tight import tight

from ase_andersonn.workflows.eos import birch_murnaghan, equation_of_state, fit_birch_murnaghan
from ase_andersonn.workflows.relax import relax


class EnergyOfVolume(Calculator):
    """E(V) of four atoms; nothing else."""

    implemented_properties = ["energy"]  # noqa: RUF012

    def __init__(self, energy: object) -> None:
        super().__init__()
        self.energy = energy

    def calculate(self, atoms: Atoms, properties: list[str], system_changes: list[str] = all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": float(self.energy(np.array([atoms.cell.volume]))[0])}


@pytest.mark.parametrize(("start", "width"), [(3.2, None), (3.6, None), (4.6, 0.02)])
def test_an_analytic_equation_is_returned(start: float, width: float | None) -> None:
    calc = EnergyOfVolume(lambda v: birch_murnaghan(v, -7.0, 47.0, 140.0, 5.5))
    found = equation_of_state(bulk("Cu", cubic=True, a=start), calc, width=width, relax_positions=False)
    assert found.holds
    assert found.volume == pytest.approx(47.0, rel=1e-8)
    assert found.atoms.cell.volume == pytest.approx(47.0, rel=1e-8)
    assert found.energy == pytest.approx(-7.0, abs=1e-9)
    assert found.bulk_modulus == pytest.approx(140.0, rel=1e-6)
    assert found.bulk_modulus_derivative == pytest.approx(5.5, rel=1e-3)
    assert found.bulk_modulus_derivative_error < 0.1
    assert np.ptp(found.volumes) / found.volume == pytest.approx(2 * (width or 0.10), rel=0.05)  # the widest range


def test_the_formula() -> None:
    """B = V E″(V) and B′ = dB/dP at V₀, by finite differences."""
    v = 47.0 + 0.01 * np.arange(-2, 3)
    e = birch_murnaghan(v, -7.0, 47.0, 140.0, 5.5)
    assert 47.0 * (e[3] - 2 * e[2] + e[1]) / 1e-4 / GPa == pytest.approx(140.0, rel=1e-5)
    pressure = -np.gradient(birch_murnaghan(fine := np.linspace(46, 48, 2001), -7.0, 47.0, 140.0, 5.5), fine)
    modulus = -fine * np.gradient(pressure, fine)
    assert (np.gradient(modulus, fine) / np.gradient(pressure, fine))[1000] == pytest.approx(5.5, rel=1e-2)


def test_the_range_shrinks_until_the_fit_holds() -> None:
    def stiff(v: np.ndarray) -> np.ndarray:
        f = ((47.0 / v) ** (2 / 3) - 1) / 2
        return birch_murnaghan(v, -7.0, 47.0, 140.0, 4.0) + 4.5 * 47.0 * 140.0 * GPa * 20.0 * f**4

    crystal = bulk("Cu", cubic=True)
    found = equation_of_state(crystal, EnergyOfVolume(stiff), relax_positions=False)
    assert found.holds
    assert np.ptp(found.volumes) / found.volume < 0.19
    assert found.bulk_modulus == pytest.approx(140.0, rel=0.01)
    with pytest.warns(UserWarning, match="does not hold from -"):
        wide = equation_of_state(crystal, EnergyOfVolume(stiff), width=0.3, relax_positions=False)
    assert not wide.holds
    assert wide.warning


def anharmonic(derivative: float) -> EnergyOfVolume:
    return EnergyOfVolume(lambda v: birch_murnaghan(v, -7.0, 47.0, 140.0, derivative))


@pytest.mark.parametrize("derivative", [1.0, 9.0])
def test_unusual_derivatives_are_reported(derivative: float) -> None:
    with pytest.warns(UserWarning, match=rf"B₀′ of Cu4 is {derivative:.2f}; crystals have 2 to 8"):
        found = equation_of_state(bulk("Cu", cubic=True), anharmonic(derivative), relax_positions=False)
    assert found.holds
    assert "B₀′" in str(found.warning)


def test_a_derivative_that_depends_on_the_range_is_reported() -> None:
    def kinked(v: np.ndarray) -> np.ndarray:
        f = ((47.0 / v) ** (2 / 3) - 1) / 2
        return birch_murnaghan(v, -7.0, 47.0, 140.0, 4.5) + 4.5 * 47.0 * 140.0 * GPa * (2.5 * f**3 - 1400.0 * f**5)

    with pytest.warns(UserWarning, match=r"B₀′ of Cu4 depends on the range of volumes: .* from -.*, .* from -"):
        found = equation_of_state(bulk("Cu", cubic=True), EnergyOfVolume(kinked), relax_positions=False)
    assert found.holds


def test_the_derivative_is_not_that_of_a_narrow_range() -> None:
    """A ripple of the energy, 0.25 meV an atom, changes the derivative of a narrow range by 3.5."""

    def rippled(v: np.ndarray) -> np.ndarray:
        f = ((47.0 / v) ** (2 / 3) - 1) / 2
        extra = 4.5 * 47.0 * 140.0 * GPa * 60.0 * f**4  # which makes the range shrink
        return birch_murnaghan(v, -7.0, 47.0, 140.0, 4.5) + extra + 1e-3 * np.sin((v - 47.0) / 0.8)

    with pytest.warns(UserWarning, match="depends on the range of volumes"):
        found = equation_of_state(bulk("Cu", cubic=True), EnergyOfVolume(rippled), relax_positions=False)
    assert np.ptp(found.volumes) / found.volume < 0.11
    own = fit_birch_murnaghan(found.volumes, found.energies)
    assert own is not None
    assert own[3] - 4.5 > 3.0
    assert abs(found.bulk_modulus_derivative - 4.5) < 1.25 * found.bulk_modulus_derivative_error


def test_energies_that_are_not_smooth_are_reported() -> None:
    rng = np.random.default_rng(0)
    smooth = anharmonic(4.0).energy
    calc = EnergyOfVolume(lambda v: smooth(v) + 0.03 * rng.uniform(-1, 1))  # of 0.4 eV
    with pytest.warns(UserWarning, match=r"meV/atom off the fit, [\d.]+% of their range: they are not smooth"):
        equation_of_state(bulk("Cu", cubic=True), calc, width=0.1, relax_positions=False)


def test_copper_with_emt_and_its_other_fits(tmp_path: Path) -> None:
    calc = BatchedEMT()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = equation_of_state(bulk("Cu", a=3.7), calc)
    assert set(map(len, calc.batches)) == {11}
    v0, e0, b = AseEOS(found.volumes, found.energies, eos="birchmurnaghan").fit(warn=False)
    assert found.volume == pytest.approx(v0, rel=1e-6)
    assert found.energy == pytest.approx(e0, abs=1e-8)
    assert found.bulk_modulus == pytest.approx(b / GPa, rel=1e-5)
    rest = relax(bulk("Cu"), EMT(), fmax=1e-4)
    assert found.volume == pytest.approx(rest.volume, rel=1e-3)
    assert found.energy == pytest.approx(rest.energy, abs=1e-4)
    json.dumps(found.to_dict(), allow_nan=False)
    found.plot(tmp_path / "eos.png")
    assert (tmp_path / "eos.png").stat().st_size


def test_atoms_and_shape_relax() -> None:
    alloy = bulk("Cu", cubic=True, a=3.8)
    alloy.symbols[:2] = "Au"  # layers: tetragonal
    alloy.rattle(0.02, seed=0)
    relaxed = relax(alloy, EMT(), fmax=1e-3)
    free = equation_of_state(alloy, EMT(), relax_shape=True, width=0.03, points=6, fmax=0.005)
    held = equation_of_state(alloy, EMT(), relax_positions=False, width=0.03, points=6)
    assert free.energy == pytest.approx(relaxed.energy, abs=1e-3)
    assert free.volume == pytest.approx(relaxed.volume, rel=2e-3)
    assert held.energy > free.energy + 0.01


def test_other_calculators() -> None:
    argon = equation_of_state(bulk("Ar", cubic=True, a=5.2), LennardJones(sigma=3.4, epsilon=0.0104, rc=10.0))
    assert argon.volume ** (1 / 3) == pytest.approx(1.54 * 3.4, rel=0.01)  # Ashcroft and Mermin, eq. 20.14
    assert argon.bulk_modulus == pytest.approx(75.1 * 0.0104 / 3.4**3 / GPa, rel=0.1)


def test_silicon_with_a_packaged_model() -> None:
    found = equation_of_state(bulk("Si", a=5.2), tight())
    assert found.holds
    assert (4 * found.volume) ** (1 / 3) == pytest.approx(5.469, abs=0.02)  # PBE
    assert 80 < found.bulk_modulus < 100


def test_what_has_no_equation() -> None:
    crystal = bulk("Cu")
    with pytest.raises(ValueError, match="no minimum"):
        equation_of_state(crystal, EnergyOfVolume(lambda v: -v), relax_positions=False)
    for options, words in (({"width": 0.0}, "width"), ({"width": 0.7}, "0.5"), ({"points": 5}, "points")):
        with pytest.raises(ValueError, match=words):
            equation_of_state(crystal, EMT(), **options)
    with pytest.raises(ValueError, match="three directions"):
        equation_of_state(molecule("CO"), EMT())
    with pytest.raises(TypeError, match="calculator"):
        equation_of_state(crystal, "EMT")
    assert fit_birch_murnaghan(np.linspace(10, 12, 7), np.linspace(0, 1, 7)) is None
