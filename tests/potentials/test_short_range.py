"""Below the shortest distances learnt everything repels, for every packaged model; above nothing has changed."""

from itertools import combinations_with_replacement, pairwise

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, graphene, molecule
from ase.calculators.fd import calculate_numerical_forces

from ase_andersonn import AndersoNN
from ase_andersonn.nn.radial import CLAMP_FRACTION, clamped_distance
from ase_andersonn.nn.zbl import zbl_energy
from ase_andersonn.potentials.base import MIN_DISTANCE_SHARE
from ase_andersonn.potentials.deq_attention import DEQAttention

MODELS = ("mlearn-pbe", "mlearn-pbe-large", "graphene", "organic")
pytestmark = pytest.mark.filterwarnings("ignore:.*(trained|training)")


def packaged(name: str) -> tuple[AndersoNN, DEQAttention]:
    calc = AndersoNN(name, dtype="float64", compile=False)
    assert isinstance(calc.model, DEQAttention)
    return calc, calc.model


def shortest(model: DEQAttention, first: int, second: int) -> float:
    """Shortest distance learnt of a pair of atomic numbers, Å."""
    i, j = model.elements.index(first), model.elements.index(second)
    return float(model.min_distance[i, j]) / MIN_DISTANCE_SHARE


def energies(calc: AndersoNN, frames: list[Atoms]) -> list[float]:
    return [result["energy"] for result in calc.evaluate(frames, forces=False, batch_atoms=4000)]


def rises(values: list[float]) -> bool:
    return all(after > before for before, after in pairwise(values))


@pytest.mark.parametrize("name", MODELS)
def test_pairs_repel_below_the_shortest_distance_learnt(name: str) -> None:
    calc, model = packaged(name)
    shares = [0.97, 0.94, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]
    pairs = list(combinations_with_replacement(model.elements, 2))
    frames = [Atoms(p, [[0.0] * 3, [x * shortest(model, *p), 0.0, 0.0]]) for p in pairs for x in shares]
    found = np.reshape(energies(calc, frames), (len(pairs), len(shares)))
    wrong = [pair for pair, row in zip(pairs, found, strict=True) if not rises(row.tolist())]
    assert not wrong


@pytest.mark.parametrize("name", ["CH4", "NH3", "CH3OH", "N2H4", "C2H6", "CO2", "CH3Cl"])
def test_atoms_pushed_together_inside_a_molecule_repel(name: str) -> None:
    """All pairs, on the line through both, where no third atom comes as near."""
    calc, model = packaged("organic")
    rest = molecule(name)
    shares = [0.97, 0.93, 0.9, 0.8, 0.65, 0.5, 0.35, 0.25]
    looked_at = 0
    for i in range(len(rest)):
        for j in set(range(len(rest))) - {i}:
            z = int(rest.numbers[i]), int(rest.numbers[j])
            unit = rest.get_distance(i, j, vector=True) / rest.get_distance(i, j)
            frames = [rest.copy() for _ in shares]
            for atoms, share in zip(frames, shares, strict=True):
                atoms.positions[j] = rest.positions[i] + share * shortest(model, *z) * unit
            others = [k for k in range(len(rest)) if k not in (i, j)]
            limits = [shortest(model, z[1], int(rest.numbers[k])) for k in others]
            if all((a.get_distances(j, others) > limits).all() for a in frames):
                looked_at += 1
                assert rises(energies(calc, frames)), f"atom {j} to atom {i} of {name}"
    assert looked_at > 1


VOLUMES = {"Li": 20.3, "Si": 20.5, "Ni": 10.9, "Cu": 11.9, "Mo": 15.8}
"""Å³ an atom."""
SHAPES = {"fcc": 1.59, "bcc": 1.26, "diamond": 2.0, "sc": 1.0, "hcp": 1.12}
"""Lattice constants at 1 Å³ an atom, Å."""


@pytest.mark.parametrize("name", ["mlearn-pbe", "mlearn-pbe-large"])
@pytest.mark.parametrize("symbol", VOLUMES)
def test_crystals_have_no_second_minimum(name: str, symbol: str) -> None:
    """From half the volume, where every structure of the element is compressed, to 0.15 times it."""
    calc, _ = packaged(name)
    for lattice, constant in SHAPES.items():
        lengths = [constant * (VOLUMES[symbol] * v) ** (1 / 3) for v in (0.5, 0.42, 0.36, 0.32, 0.28, 0.24, 0.2, 0.15)]
        crystals = [bulk(symbol, lattice, a=a, **({"covera": 1.633} if lattice == "hcp" else {})) for a in lengths]
        found = [energy / len(crystals[0]) for energy in energies(calc, crystals)]
        assert rises(found), (lattice, found)


def test_a_sheet_has_no_second_minimum() -> None:
    calc, _ = packaged("graphene")
    sheets = [graphene(a=2.46 * v**0.5, vacuum=10.0) for v in np.arange(0.9, 0.1499, -0.05)]
    assert rises(energies(calc, sheets))


@pytest.mark.parametrize("share", [1.0, 0.985, 0.97, 0.9, 0.85, 0.5])
def test_forces_are_the_slopes_of_the_energy_where_it_sets_in(share: float) -> None:
    calc, model = packaged("organic")
    calc = AndersoNN("organic", dtype="float64", tol=1e-14, compile=False)
    atoms = molecule("CH4")
    unit = atoms.get_distance(1, 2, vector=True) / atoms.get_distance(1, 2)
    atoms.positions[2] = atoms.positions[1] + share * shortest(model, 1, 1) * unit
    atoms.calc = calc
    numerical = calculate_numerical_forces(atoms, eps=1e-5, iatoms=[2])
    np.testing.assert_allclose(atoms.get_forces()[2], numerical[0], atol=2e-4 * (1 + np.abs(numerical).max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_is_added_from_the_shortest_distance_on(dtype: torch.dtype) -> None:
    r = torch.linspace(1.0, 3.0, 50, dtype=dtype)[None].requires_grad_()
    z = torch.full((1, 1), 14.0, dtype=dtype)
    energy = zbl_energy(r, z, z.expand(1, 50), torch.ones_like(r), torch.ones(1, 50, dtype=torch.bool), 0.97, 3.0)
    assert energy.item() == 0.0
    assert not torch.autograd.grad(energy.sum(), r)[0].any()


@pytest.mark.parametrize(("clamp_fraction", "push"), [(CLAMP_FRACTION, 0.0), (0.97, 3.0)])
def test_the_repulsion_never_pulls_and_makes_up_for_what_is_not_seen(clamp_fraction: float, push: float) -> None:
    r = torch.linspace(0.05, 1.5, 2000, dtype=torch.float64)[None].requires_grad_()
    z, onset = torch.ones(1, 1, dtype=torch.float64), torch.ones_like(r)
    energy = zbl_energy(r, z, z.expand_as(r), onset, torch.ones_like(r, dtype=torch.bool), clamp_fraction, push)
    (slope,) = torch.autograd.grad(energy.sum(), r)
    assert bool((slope <= 1e-12).all())
    assert bool((slope[r < 0.999] < 0.0).all())
    (seen,) = torch.autograd.grad(clamped_distance(r, onset, clamp_fraction).sum(), r)
    assert not seen[r < clamp_fraction - 1e-3].any()
