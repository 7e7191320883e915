"""Reference energies and force scales."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from ase_andersonn.training.reference import (
    RIDGE,
    SMALLEST_SCALE,
    force_scales,
    reference_energies,
    sample_with_energies,
)


def frame(formula: str, energy: float | None = None, forces: np.ndarray | None = None) -> Atoms:
    atoms = Atoms(formula, positions=np.zeros((len(Atoms(formula)), 3)))
    results = {"energy": energy, "forces": forces}
    atoms.calc = SinglePointCalculator(atoms, **{k: v for k, v in results.items() if v is not None})
    return atoms


def test_energies_of_atoms_that_do_not_interact_are_found() -> None:
    true = {1: -13.6, 6: -1030.0, 8: -2041.0}
    formulas = ["H2", "CH4", "CO2", "H2O", "C2H6", "CO"]
    frames = [frame(f, sum(true[z] for z in Atoms(f).numbers)) for f in formulas]
    found = reference_energies(frames)
    # the ridge is 1e-6 of the spread between the elements' energies
    assert found == pytest.approx(true, abs=0.05)
    for atoms in frames:
        total = sum(found[z] for z in atoms.numbers)
        assert total / len(atoms) == pytest.approx(atoms.get_potential_energy() / len(atoms), abs=0.02)


@pytest.mark.parametrize("given", [{}, {"O": -7.0}])
def test_the_minimum_is_that_of_the_formula(given: dict[str, float]) -> None:
    """With elements that always stand together, so that the ridge decides; and the same where frames are doubled."""
    rng = np.random.default_rng(0)
    formulas = ["CH4", "C2H8", "CO2", "H2O", "NaCl", "Na2Cl2"]
    frames = [frame(f, float(len(Atoms(f)) * rng.normal(-5.0))) for f in formulas]
    found = reference_energies(frames, given)
    assert reference_energies(frames * 3, given) == pytest.approx(found, rel=1e-9)
    share = np.array([[np.mean(atoms.numbers == z) for z in sorted(found)] for atoms in frames])
    per_atom = np.array([atoms.get_potential_energy() / len(atoms) for atoms in frames])
    free = np.array([z != 8 or not given for z in sorted(found)])
    fixed = np.where(free, 0.0, -7.0)
    rest = per_atom - share @ fixed
    mean = rest.sum() / share[:, free].sum()

    def loss(e: np.ndarray) -> float:
        ridge = RIDGE * len(frames) * ((e[free] - mean) ** 2).sum()
        return float(((per_atom - share @ e) ** 2).sum() + ridge)

    energies = np.array([found[z] for z in sorted(found)])
    for k in np.flatnonzero(free):
        step = np.zeros(len(free))
        step[k] = 1e-3
        slope = (loss(energies + step) - loss(energies - step)) / 2e-3
        assert abs(slope) < 1e-9  # a ridge without its factor gives slopes of 1e-5
    assert found.get(8) == pytest.approx(-7.0) or not given


def test_one_composition_keeps_its_mean_energy() -> None:
    found = reference_energies([frame("CH4", -1000.0), frame("CH4", -1002.0)])
    assert found[6] + 4 * found[1] == pytest.approx(-1001.0, rel=1e-5)


def test_given_energies_are_kept() -> None:
    found = reference_energies([frame("CH4", -1000.0)], {"H": -13.0})
    assert found == pytest.approx({1: -13.0, 6: -948.0})
    with pytest.raises(ValueError, match="'Xx'"):
        reference_energies([frame("CH4", -1000.0)], {"Xx": 1.0})


def test_a_given_energy_of_an_element_without_frames_is_kept() -> None:
    frames = [frame("CH4", -1000.0)]
    assert reference_energies(frames, {"O": -7.0}) == pytest.approx({**reference_energies(frames), 8: -7.0})


def test_without_energies_the_reference_is_zero() -> None:
    assert reference_energies([frame("CO", forces=np.ones((2, 3)))]) == {6: 0.0, 8: 0.0}


def test_a_sample_holds_enough_frames_of_every_element() -> None:
    rng = np.random.default_rng(0)
    frames = [Atoms(rng.choice(["H", "C"], size=3)) for _ in range(200)]
    frames += [Atoms("HAu") for _ in range(2)] + [Atoms("HPt") for _ in range(30)]
    for atoms in (*frames[1:200:2], *frames[201:]):
        atoms.calc = SinglePointCalculator(atoms, energy=1.0)
    sample = sample_with_energies(frames, 10)
    counts = {symbol: sum(symbol in atoms.symbols for atoms in sample) for symbol in ("H", "C", "Au", "Pt")}
    assert counts["Au"] == 1  # the one with energy
    assert min(counts[symbol] for symbol in ("H", "C", "Pt")) >= 10
    assert len(sample) < 60
    assert all(atoms.calc is not None for atoms in sample)
    assert len({id(atoms) for atoms in sample}) == len(sample)


def test_scales_are_root_mean_square_forces() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3)), rng.normal(size=(3, 3))
    found = force_scales([frame("CO", 0.0, a), frame("CO2", 0.0, b), frame("H", -13.6)])
    carbon, oxygen = np.stack([a[0], b[0]]), np.stack([a[1], b[1], b[2]])
    assert found[6] == pytest.approx(np.sqrt((carbon**2).mean()))
    assert found[8] == pytest.approx(np.sqrt((oxygen**2).mean()))
    overall = np.sqrt((np.concatenate([a, b]) ** 2).mean())
    assert found[1] == pytest.approx(overall)  # hydrogen has no forces


def test_scales_of_rare_elements_are_drawn_to_that_of_all() -> None:
    rng = np.random.default_rng(0)
    frames = [frame("C2", 0.0, rng.normal(size=(2, 3))) for _ in range(500)] + [frame("O2", 0.0, np.full((2, 3), 50.0))]
    alone, drawn = force_scales(frames), force_scales(frames, pooled_atoms=300.0)
    overall = np.sqrt(np.mean(np.concatenate([atoms.calc.results["forces"] for atoms in frames]) ** 2))
    assert drawn[6] == pytest.approx(alone[6] ** (1000 / 1300) * overall ** (300 / 1300))
    assert drawn[8] == pytest.approx(50.0 ** (2 / 302) * overall ** (300 / 302))


def test_scales_are_positive() -> None:
    assert force_scales([frame("CO", 0.0, np.zeros((2, 3)))]) == {6: 1.0, 8: 1.0}
    assert force_scales([frame("CO", 0.0)]) == {6: 1.0, 8: 1.0}
    still = force_scales([frame("CO", 0.0, np.array([[0.0, 0, 0], [1, 1, 1]]))])
    assert still[6] == pytest.approx(SMALLEST_SCALE * np.sqrt(0.5))
