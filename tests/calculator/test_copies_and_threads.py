"""Copies of a calculator, and threads that use one calculator or one each."""

import copy
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from laws import results, same
from small_models import STRUCTURES, ethanol, silicon, small_calculator, small_model

from ase_andersonn import AndersoNN
from ase_andersonn.lattice.model import GridConfig, GridModel


def test_copies_follow_a_trajectory_of_their_own() -> None:
    calc, atoms = small_calculator(), silicon()
    for seed in range(3):
        atoms.rattle(0.02, seed=seed)
        calc.get_forces(atoms)
    expected = results(small_calculator(warm_start=False), atoms)
    for copied in (copy.deepcopy(calc), pickle.loads(pickle.dumps(calc))):
        assert copied.results["energy"] == calc.results["energy"]
        assert copied.model is not calc.model
        same(results(copied, atoms), expected)
        copied.get_forces(ethanol())
        same(results(copied, atoms), expected)
    same(results(calc, atoms), expected)


def test_threads_that_share_a_calculator_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    calc = small_calculator(warm_start=False)
    evaluate_one = calc.evaluator.calculate
    fused: list[int] = []
    inside: set[int] = set()

    def slowly(*args: Any, **kwargs: Any) -> dict[str, Any]:
        inside.add(threading.get_ident())
        fused.append(len(inside))
        time.sleep(1e-3)
        found = evaluate_one(*args, **kwargs)
        inside.remove(threading.get_ident())
        return found

    monkeypatch.setattr(calc.evaluator, "calculate", slowly)
    structures = [silicon() for _ in range(4)]
    for seed, atoms in enumerate(structures):
        atoms.rattle(0.05, seed=seed)
    expected = [small_calculator(warm_start=False).get_forces(a) for a in structures]

    def largest_error(k: int) -> float:
        error = 0.0
        for repeat in range(20):
            if repeat % 2:
                calc.reset()
            error = max(error, np.abs(calc.get_forces(structures[k]) - expected[k]).max())
        return error

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(largest_error, range(4))) < 1e-10
    assert max(fused) == 1


def assert_waits(calc: AndersoNN, method: Callable[..., object], *args: object) -> None:
    """The method returns only after another thread's calculation has ended."""
    thread = threading.Thread(target=method, args=args)
    with calc._turn:
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
    thread.join(10.0)
    assert not thread.is_alive()


def test_commit_waits_for_another_threads_calculation() -> None:
    calc, atoms = small_calculator(), silicon()
    calc.trial_energy(atoms, np.arange(len(atoms)))
    assert_waits(calc, calc.commit, True)


@pytest.mark.parametrize("copied", [lambda calc: calc, copy.deepcopy, lambda calc: pickle.loads(pickle.dumps(calc))])
def test_methods_of_the_evaluator_wait_too(copied: Any) -> None:
    spins = Atoms("H9", [[x, y, 0.0] for x in range(3) for y in range(3)], cell=[3, 3, 1], pbc=[True, True, False])
    spins.set_initial_magnetic_moments([1.0] * 9)
    calc = copied(AndersoNN(GridModel(GridConfig()), compile=False))
    assert_waits(calc, calc.independent_sets, spins)


def test_threads_with_a_calculator_each() -> None:
    model, found = small_model(), {}
    structures = {name: STRUCTURES[name]() for name in STRUCTURES}

    def work(name: str) -> None:
        calc, atoms = AndersoNN(model, dtype="float64", tol=1e-16, compile=False), structures[name].copy()
        for seed in range(4):
            atoms.rattle(0.02, seed=seed)
            calc.get_forces(atoms)
        found[name] = results(calc, structures[name])

    threads = [threading.Thread(target=work, args=(name,)) for name in structures]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == set(structures)
    for name, atoms in structures.items():
        same(found[name], results(small_calculator(warm_start=False), atoms))
