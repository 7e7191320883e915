"""Which structures the calculator takes, which it refuses, and what a refusal leaves behind."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import CalculationFailed, PropertyNotImplementedError
from laws import results, same
from small_models import STRUCTURES, silicon, small_calculator

from ase_andersonn.calculator import ConvergenceError
from ase_andersonn.engine import evaluator as direct_evaluator
from ase_andersonn.engine.energy_forces import evaluate

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("structure", ["slab", "molecule", "wire"])
@pytest.mark.parametrize("name", ["stress", "stresses"])
def test_stress_needs_three_periodic_directions(structure: str, name: str) -> None:
    calc, atoms = small_calculator(), STRUCTURES[structure]()
    text = (
        rf"stress needs a cell that is periodic in three directions; pbc is \[{atoms.pbc[0]}, {atoms.pbc[1]}, False\]"
    )
    with pytest.raises(PropertyNotImplementedError, match=text):
        calc.get_property(name, atoms)
    assert np.isfinite(calc.get_forces(atoms)).all()
    with pytest.raises(PropertyNotImplementedError):
        calc.get_property(name, atoms)


def test_a_single_atom_and_isolated_atoms() -> None:
    calc = small_calculator()
    one = calc.get_potential_energy(Atoms("Si"))
    lonely = Atoms("Si3", positions=np.diag([10.0, 20.0, 30.0]))
    assert calc.get_potential_energy(lonely) == pytest.approx(3 * one, rel=1e-12)
    assert np.array_equal(calc.get_forces(lonely), np.zeros((3, 3)))
    box = Atoms("Si", cell=[20.0, 20.0, 20.0], pbc=True)
    assert calc.get_potential_energy(box) == pytest.approx(one, rel=1e-12)
    assert np.array_equal(calc.get_stress(box), np.zeros(6))


def test_a_cell_far_smaller_than_the_cutoff() -> None:
    calc = small_calculator()
    primitive = Atoms("Si", cell=[[0.0, 1.9, 1.9], [1.9, 0.0, 1.9], [1.9, 1.9, 0.0]], pbc=True)
    assert calc.get_potential_energy(primitive * 3) == pytest.approx(27 * calc.get_potential_energy(primitive))
    assert np.abs(calc.get_forces(primitive)).max() < 1e-12


def moved(index: int, value: Any) -> Callable[[Atoms], None]:
    return lambda atoms: atoms.positions.__setitem__(index, value)


def on_one_site(atoms: Atoms) -> None:
    atoms.positions[5] = atoms.positions[2] + atoms.cell.array[0]


def strange_cell(atoms: Atoms) -> None:
    atoms.cell[1, 1] = INF


def flat_cell(atoms: Atoms) -> None:
    atoms.cell[2] = atoms.cell[0] + atoms.cell[1]


def no_cell(atoms: Atoms) -> None:
    atoms.cell[2] = 0.0


def unknown_elements(atoms: Atoms) -> None:
    atoms.numbers[[1, 4]] = [79, 26]


def nothing(atoms: Atoms) -> None:
    del atoms[:]


WRONG: dict[str, tuple[Callable[[Atoms], None], str]] = {
    "empty": (nothing, "the structure has no atoms"),
    "nan": (moved(3, [0.0, NAN, 0.0]), "positions of atoms 3 are not finite"),
    "inf": (moved(0, INF), "positions of atoms 0 are not finite"),
    "one site": (on_one_site, "atoms 2 and 5 are .* apart, less than 0.001 Å; remove or move one"),
    "cell": (strange_cell, "the cell is not finite"),
    "flat": (flat_cell, "span no volume"),
    "no cell": (no_cell, "pbc is set along c, where the cell vector is zero"),
    "element": (
        unknown_elements,
        "contains Fe, Au; this model knows H, C, O, Si, Cu. Packaged models that know Fe, Au: universal",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("warm_start", [True, False], ids=["warm", "cold"])
def test_a_structure_without_an_energy_is_refused_and_changes_nothing(wrong: str, warm_start: bool) -> None:
    calc, fresh, good = small_calculator(warm_start=warm_start), small_calculator(warm_start=False), silicon()
    calc.get_forces(good)
    bad, (spoil, text) = silicon(), WRONG[wrong]
    spoil(bad)
    for _ in range(2):
        with pytest.raises(ValueError, match=text):
            calc.get_property("forces", bad)
        assert calc.results == {}
    same(results(calc, good), results(fresh, good))
    good.rattle(0.05, seed=9)
    same(results(calc, good), results(fresh, good))


def test_not_converging_raises_and_the_next_call_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    calc, atoms = small_calculator(), silicon()
    with monkeypatch.context() as patch:
        patch.setattr(direct_evaluator, "evaluate", partial(evaluate, max_steps=2))
        text = r"the equilibrium was not reached: residuals .* \(features\) and .* \(adjoint\), wanted 1.0e-08"
        with pytest.raises(ConvergenceError, match=text):
            calc.get_potential_energy(atoms)
        with pytest.raises(ConvergenceError, match=text):
            calc.evaluate([atoms])
        assert calc.results == {}
        assert not calc.diagnostics["converged"]
    same(results(calc, atoms), results(small_calculator(warm_start=False), atoms))
    before = results(calc, atoms)
    nearby, atoms.positions[0, 0] = atoms.copy(), atoms.positions[0, 0] + 0.01
    with monkeypatch.context() as patch:
        patch.setattr(direct_evaluator, "evaluate", partial(evaluate, max_steps=1))
        with pytest.raises(ConvergenceError):
            calc.get_potential_energy(atoms)
    same(results(calc, nearby), before)


def test_an_energy_that_overflows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def infinite(*args: Any, **options: Any) -> Any:
        evaluation = evaluate(*args, **options)
        evaluation.energy.fill_(INF)
        return evaluation

    monkeypatch.setattr(direct_evaluator, "evaluate", infinite)
    with pytest.raises(CalculationFailed, match="the energy is not finite"):
        small_calculator().get_potential_energy(silicon())
