"""Physical laws, for a small model with random weights in float64."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.data import atomic_numbers
from laws import LAWS, repulsion, separation, smooth
from small_models import (
    STRUCTURES,
    cartesian_model,
    ethanol,
    message_model,
    rattled,
    silicon,
    skewed,
    slab,
    small_model,
    stiff_model,
)

from ase_andersonn import AndersoNN
from ase_andersonn.nn.radial import CLAMP_FRACTION
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.testing.calculators import force_error, stress_error

CUTOFF = 4.0


MODELS = {
    "random": lambda: small_model(0),
    "plain": lambda: small_model(2, separable=False, n_bispectrum=0, linear=False),
    "message": message_model,
    "stiff": lambda: stiff_model(1, l_max=4),
    "cartesian": cartesian_model,
}


@pytest.fixture(scope="module", params=MODELS)
def calc(request: pytest.FixtureRequest) -> AndersoNN:
    """Random weights, others whose equilibrium is hard to find, and features with tensors."""
    return AndersoNN(MODELS[request.param](), dtype="float64", tol=1e-22, warm_start=False, compile=False)


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("law", LAWS)
def test_law(law: str, structure: str, calc: AndersoNN) -> None:
    LAWS[law](calc, STRUCTURES[structure]())


@pytest.mark.parametrize("structure", STRUCTURES)
def test_forces_are_finite_differences_of_the_energy(structure: str, calc: AndersoNN) -> None:
    atoms = STRUCTURES[structure]()
    assert force_error(calc, atoms, indices=range(0, len(atoms), 2)) <= 1e-6


@pytest.mark.parametrize("structure", [silicon, skewed])
def test_stress_is_a_finite_difference_of_the_energy(structure: Callable[[], Atoms], calc: AndersoNN) -> None:
    assert stress_error(calc, structure(), strain=1e-3) <= 1e-6


@pytest.mark.parametrize("tol", [1e-4, 1e-20])
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("structure", ["bulk", "molecule"])
def test_rotations_and_reflections_at_any_rank_and_tolerance(structure: str, rank: int, tol: float) -> None:
    """The solver turns with the structure: its residuals are lengths of rows, which no rotation changes."""
    calc = AndersoNN(cartesian_model(3, rank), dtype="float64", tol=tol, warm_start=False, compile=False)
    LAWS["rotation"](calc, STRUCTURES[structure](), tol=1e-10)


@pytest.mark.parametrize("n_pairs", [1, 5])
def test_any_number_of_pairs_of_channels(n_pairs: int) -> None:
    """Every channel with itself alone, and with all others."""
    calc = AndersoNN(small_model(3, n_pairs=n_pairs), dtype="float64", tol=1e-22, warm_start=False, compile=False)
    for law in ("rotation", "permutation", "no_net_force"):
        LAWS[law](calc, slab(), tol=1e-10)
    assert force_error(calc, slab(), indices=range(3)) <= 1e-6


def test_molecules_apart(calc: AndersoNN) -> None:
    separation(calc, ethanol(), CUTOFF)


def test_large_supercell(calc: AndersoNN) -> None:
    """Eight times 64 atoms: more than one block of atoms, and a cell wider than the list of neighbours."""
    atoms = rattled(bulk("Si", cubic=True) * 2)
    one, eight = (calc.get_potential_energy(cell) for cell in (atoms, atoms * 2))
    assert eight == pytest.approx(8 * one, rel=1e-12)


def two_molecules() -> Atoms:
    first, second = ethanol(), ethanol()
    second.translate([0.3, 0.2, 4.1])
    return first + second


@pytest.mark.parametrize("structure", [silicon, slab, two_molecules])
def test_neighbors_come_and_go_without_a_jump(structure: Callable[[], Atoms], calc: AndersoNN) -> None:
    atoms = structure()
    assert sum(smooth(calc, atoms, mover, CUTOFF, seed=mover) for mover in range(3)) >= 3


def min_distance(calc: AndersoNN, pair: tuple[str, str]) -> float:
    """Shortest distance the model knows of two elements, Å."""
    model = calc.model
    assert isinstance(model, EnergyModel)
    first, second = (model.elements.index(atomic_numbers[symbol]) for symbol in pair)
    return float(model.min_distance[first, second])


@pytest.mark.parametrize("pair", [("Si", "Si"), ("C", "O"), ("H", "H"), ("H", "Cu")])
def test_close_contacts_repel(pair: tuple[str, str], calc: AndersoNN) -> None:
    """From the distance on below which the network sees none: farther apart random weights may attract."""
    clamp_fraction = CLAMP_FRACTION * min_distance(calc, pair)
    repulsion(calc, pair, [clamp_fraction, 0.6 * clamp_fraction, 0.3 * clamp_fraction])


def test_energy_along_a_path_is_the_work_of_the_forces(calc: AndersoNN) -> None:
    """`E(b) − E(a) = −∫ F dx` while atoms enter and leave the neighbourhood, by Gauss-Legendre quadrature."""
    a, b = slab(), slab()
    b.positions[-1] += [0.5, 0.3, 0.1]
    step = b.positions - a.positions
    nodes, weights = np.polynomial.legendre.leggauss(40)
    work = 0.0
    for node, weight in zip(0.5 * (nodes + 1), 0.5 * weights, strict=True):
        between = a.copy()
        between.positions += node * step
        work += weight * float((calc.get_forces(between) * step).sum())
    assert calc.get_potential_energy(b) - calc.get_potential_energy(a) == pytest.approx(-work, abs=1e-6)


@pytest.mark.parametrize("symbol", ["Cs", "Si"])
def test_repulsion_ends_within_the_cutoff(symbol: str) -> None:
    """The covalent radii of two heavy atoms may add up to more than the cutoff, where their edge ends."""
    numbers = sorted({14, 55})
    model = small_model(3, elements=tuple(numbers), cutoff=3.0)
    calc = AndersoNN(model, dtype="float64", tol=1e-22, warm_start=False, compile=False)
    pair = Atoms([symbol, symbol], positions=[[0.0, 0.0, 0.0], [2.9, 0.0, 0.0]])
    crossed = sum(smooth(calc, pair, 1, 3.0, seed=seed) for seed in range(6))
    assert crossed >= 3


@pytest.mark.parametrize("pair", [("Si", "Si"), ("C", "O"), ("H", "Cu")])
def test_the_shortest_known_distance_is_passed_without_a_jump(pair: tuple[str, str], calc: AndersoNN) -> None:
    for distance in (min_distance(calc, pair), CLAMP_FRACTION * min_distance(calc, pair)):
        atoms = Atoms(pair, positions=[[0.0, 0.0, 0.0], [1.01 * distance, 0.0, 0.0]])
        assert sum(smooth(calc, atoms, 1, distance, seed=seed, step=1e-9) for seed in range(6)) >= 4


def test_float32_keeps_the_laws_within_its_precision() -> None:
    calc = AndersoNN(small_model(dtype=torch.float32), tol=1e-10, warm_start=False, compile=False)
    for law in ("translation", "permutation", "rotation", "no_net_force", "sums"):
        LAWS[law](calc, rattled(molecule("CH3CH2OH")), tol=3e-5)
