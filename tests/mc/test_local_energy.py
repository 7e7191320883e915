"""What the driver asks of a calculator that takes part in moves, and that it keeps to it."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import CalculationFailed
from ase.constraints import FixAtoms, FixCartesian
from mc_systems import Energy, Ising, LocalEnergyOf

from ase_andersonn.mc import (
    Displacement,
    EnergyMismatchError,
    Exchange,
    LocalEnergy,
    ManyLocalEnergies,
    MetropolisMC,
    SpeciesSwap,
    SpinFlip,
    Transmutation,
    VolumeChange,
)


def springs(i, r, z, m):
    return 0.02 * (r**2).sum(1) + 0.001 * z


def crystal(calc, n=8):
    atoms = Atoms(f"Cu{n // 2}Ni{n - n // 2}", positions=3.0 * np.arange(3 * n).reshape(n, 3) / n)
    atoms.set_cell([9.0] * 3)
    atoms.pbc = True
    atoms.set_initial_magnetic_moments([1.0] * n)
    atoms.calc = calc
    return atoms


MOVES = [Displacement(0.3), Displacement(0.3, n_atoms=2), SpeciesSwap(), Transmutation({"Cu": 0, "Ni": 0}), SpinFlip()]


def test_protocols_are_recognised_by_their_methods():
    assert isinstance(LocalEnergyOf(springs), LocalEnergy)
    assert not isinstance(LocalEnergyOf(springs), ManyLocalEnergies)
    assert isinstance(Ising(4), ManyLocalEnergies)
    assert not isinstance(Energy(None), LocalEnergy)


def test_each_trial_is_committed_and_lists_the_changed_atoms():
    calc = LocalEnergyOf(springs)
    mc = MetropolisMC(crystal(calc), 300.0, MOVES, seed=0, check_interval=0)
    assert calc.log == [("trial_energy", 8), ("commit", True)]
    mc.run(300)
    names, values = zip(*calc.log[2:], strict=True)
    tried = 300 - mc.statistics["SpeciesSwap"].impossible  # there are none to swap in a pure metal
    assert names[::2] == ("trial_energy",) * tried
    assert names[1::2] == ("commit",) * tried
    assert set(values[::2]) == {1, 2}
    assert set(values[1::2]) == {True, False}


def test_changed_atoms_are_all_that_differ():
    class Watch(LocalEnergyOf):
        before = None

        def trial_energy(self, atoms, changed):
            now = {name: values.copy() for name, values in atoms.arrays.items()}
            if self.before is not None:
                assert len(np.unique(changed)) == len(changed)
                differ = np.zeros(len(atoms), bool)
                for name, values in now.items():
                    differ |= (values != self.before[name]).reshape(len(atoms), -1).any(1)
                assert differ[changed].all()
                rest = np.setdiff1d(np.arange(len(atoms)), changed)
                for name, values in now.items():
                    np.testing.assert_array_equal(values[rest], self.before[name][rest])
            self.now = now
            return super().trial_energy(atoms, changed)

        def commit(self, accepted):
            super().commit(accepted)
            self.before = self.now if accepted else self.before

    calc = Watch(springs)
    mc = MetropolisMC(crystal(calc), 300.0, MOVES, seed=1)
    for _ in mc.irun(300):
        if mc.nsteps:
            for name, values in mc.atoms.arrays.items():
                np.testing.assert_array_equal(values, calc.before[name])


@pytest.mark.parametrize("moves", [MOVES, [VolumeChange(0.01), Displacement(0.3)]])
def test_local_and_full_energies_make_the_same_run(moves):
    runs = []
    for local in (True, False):
        mc = MetropolisMC(crystal(LocalEnergyOf(springs)), 300.0, moves, seed=2, local=local)
        energies = []
        mc.attach(lambda e=energies, mc=mc: e.append(mc.energy))
        mc.run(300)
        runs.append((mc.atoms, energies, mc.statistics))
    np.testing.assert_allclose(runs[0][1], runs[1][1], atol=1e-12)
    np.testing.assert_array_equal(runs[0][0].positions, runs[1][0].positions)
    assert runs[0][2] == runs[1][2]


def test_cell_and_count_changes_list_all_atoms():
    calc = LocalEnergyOf(lambda i, r, z, m: 0.0 * z)
    atoms = Atoms("Ar", positions=[[0, 0, 0]], cell=[8.0] * 3, pbc=True, calculator=calc)
    mc = MetropolisMC(atoms, 300.0, [Exchange("Ar", -0.3), VolumeChange(1e-4)], seed=3)
    sizes = []
    mc.attach(lambda: sizes.append(len(atoms)))
    mc.run(400)
    assert min(sizes) == 0 < max(sizes)
    committed = 0 if calc.committed is None else len(calc.committed[0])
    assert not len(atoms) or committed == len(atoms)


def test_a_move_costs_the_same_in_a_large_system():
    """No arrays of the size of the system are made in a move, whatever the kind."""
    import tracemalloc

    class Zero:
        def trial_energy(self, atoms, changed):
            return 0.0

        def commit(self, accepted):
            pass

    n = 300_000
    numbers = np.tile([28, 29], n // 2)
    atoms = Atoms(numbers=numbers, positions=np.zeros((n, 3)), magmoms=np.ones(n), calculator=Zero())
    mc = MetropolisMC(atoms, 300.0, MOVES, seed=4, check_interval=0)
    mc.run(40)
    tracemalloc.start()
    mc.run(100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < n


def test_an_error_puts_the_atoms_back_and_the_run_can_go_on():
    class Fails(LocalEnergyOf):
        fail = False

        def trial_energy(self, atoms, changed):
            if self.fail:
                self.committed = None  # worse than what the protocol asks for
                raise CalculationFailed("no convergence")
            return super().trial_energy(atoms, changed)

    calc = Fails(springs)
    mc = MetropolisMC(crystal(calc), 300.0, [*MOVES, VolumeChange(0.01)], seed=5)
    for _ in range(20):
        mc.run(3)
        before, calc.fail = mc.atoms.copy(), True
        with pytest.raises(CalculationFailed, match="no convergence"):
            mc.run(1)
        assert mc.atoms == before
        calc.fail = False
    mc.check_energy()


@pytest.mark.parametrize("move", [Exchange("Cu", -0.3), VolumeChange(0.01), *MOVES])
def test_a_full_evaluation_that_fails_puts_the_atoms_back(move):
    calc = Energy(lambda a: 0.0)
    mc = MetropolisMC(crystal(calc) if "Exchange" not in repr(move) else bare(calc), 300.0, move, seed=6)
    before = mc.atoms.copy()

    def fail(atoms):
        raise CalculationFailed("no")

    calc.function = fail
    for _ in range(10):
        with pytest.raises(CalculationFailed):
            mc.run(1)
        assert mc.atoms == before
        assert mc.energy == 0.0


def bare(calc):
    atoms = crystal(calc)
    del atoms.arrays["initial_magmoms"]
    return atoms


def test_a_running_energy_that_drifts_is_an_error():
    class Drifts(LocalEnergyOf):
        def trial_energy(self, atoms, changed):
            return super().trial_energy(atoms, changed) + (0.001 if len(changed) == 1 else 0.0)

    mc = MetropolisMC(crystal(Drifts(springs)), 300.0, Displacement(0.1), seed=7, check_interval=50)
    with pytest.raises(EnergyMismatchError, match=r"after 50 steps the running energy .*local=False"):
        mc.run(100)
    loose = MetropolisMC(
        crystal(Drifts(springs)), 300.0, Displacement(0.1), seed=7, check_interval=50, check_tolerance=1.0
    )
    loose.run(100)
    assert loose.energy == pytest.approx(loose.atoms.get_potential_energy(), abs=1e-12)


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("what", ["positions", "numbers", "cell", "pbc", "count", "fixed", "calculator"])
def test_atoms_changed_between_runs_are_taken_as_they_are(what, local):
    def changed(atoms):
        if what == "positions":
            atoms.positions[0] += 0.3
        elif what == "numbers":
            atoms.numbers[0] = 47
        elif what == "cell":
            atoms.set_cell(1.1 * atoms.cell, scale_atoms=True)
        elif what == "pbc":
            atoms.pbc = False
        elif what == "count":
            del atoms[0]
        elif what == "fixed":
            atoms.set_constraint(FixAtoms([0, 1]))
        else:
            atoms.calc = LocalEnergyOf(lambda i, r, z, m: 2.0 * springs(i, r, z, m))

    mc = MetropolisMC(
        crystal(LocalEnergyOf(springs)), 300.0, Displacement(0.1), seed=8, local=local, check_tolerance=1e-9
    )
    mc.run(10)
    changed(mc.atoms)
    before = mc.atoms.positions.copy()
    mc.run(0)
    assert mc.energy == pytest.approx(mc.atoms.calc.get_potential_energy(mc.atoms), abs=1e-12)
    mc.run(30)
    mc.check_energy()
    if what == "fixed":
        assert np.array_equal(mc.atoms.positions[:2], before[:2])


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("when", ["before the first run", "after an error", "after a loop that was left"])
def test_atoms_changed_at_any_time_between_runs_are_taken_as_they_are(when, local):
    mc = MetropolisMC(
        crystal(LocalEnergyOf(springs)), 300.0, Displacement(0.1), seed=8, local=local, check_tolerance=1e-9
    )
    kept = None  # a generator that is not closed yet when the next run begins
    if when == "after an error":
        mc.attach(lambda: 1 / 0, -5)
        with pytest.raises(ZeroDivisionError):
            mc.run(10)
    elif when == "after a loop that was left":
        kept = mc.irun(10)
        next(kept)
        next(kept)
    mc.atoms.positions[0] += 0.3
    mc.run(0)
    assert mc.energy == pytest.approx(mc.atoms.calc.get_potential_energy(mc.atoms), abs=1e-12)
    del kept
    mc.atoms.positions[0] += 0.3
    mc.run(20)
    mc.check_energy()


def test_what_an_observer_changed_is_no_secret_after_the_error_it_made():
    mc = MetropolisMC(crystal(LocalEnergyOf(springs)), 300.0, Displacement(0.1), seed=8, check_interval=10)

    def push():
        mc.atoms.positions += 1.0

    mc.attach(push, -15)
    with pytest.raises(EnergyMismatchError, match="refresh"):
        mc.run(30)
    mc.run(0)
    assert mc.energy == pytest.approx(mc.atoms.calc.get_potential_energy(mc.atoms), abs=1e-12)


def test_atoms_that_nobody_changed_are_not_evaluated_anew():
    mc = MetropolisMC(crystal(LocalEnergyOf(springs)), 300.0, MOVES, seed=8, check_interval=0)
    seen = len(mc.atoms.calc.log)
    for _ in range(5):
        mc.run(3)
    assert ("trial_energy", 8) not in mc.atoms.calc.log[seen:]


def test_fingerprints_depend_on_constraints_and_arrays_of_any_kind():
    mc = MetropolisMC(crystal(LocalEnergyOf(springs)), 300.0, Displacement(0.1), seed=8, check_interval=0)
    mc.atoms.set_array("day", np.zeros(8, "datetime64[s]"))
    for constraint in (FixAtoms([0]), FixAtoms([1]), FixCartesian(0, (True, False, False))):
        mc.atoms.set_constraint(constraint)
        mc.run(0)
        seen = len(mc.atoms.calc.log)
        mc.run(0)
        assert len(mc.atoms.calc.log) == seen
        mc.atoms.set_constraint()
        mc.run(0)
        assert mc.atoms.calc.log[seen:] == [("trial_energy", 8), ("commit", True)]


def test_atoms_changed_within_a_run_are_noticed_or_announced():
    mc = MetropolisMC(crystal(LocalEnergyOf(springs)), 300.0, Displacement(0.1), seed=8, check_interval=10)

    def push():
        mc.atoms.positions += 1.0

    mc.attach(push, -15)
    with pytest.raises(EnergyMismatchError, match="refresh"):
        mc.run(30)
    mc.atoms.positions += 1.0
    mc.refresh()
    mc.run(20)


def test_runs_in_parts_are_one_run():
    def end(parts):
        mc = MetropolisMC(crystal(LocalEnergyOf(springs)), 300.0, Displacement(0.1), seed=8)
        for steps in parts:
            mc.run(steps)
        return mc.atoms.positions

    assert np.array_equal(end([40]), end([7, 0, 13, 20]))


def test_energies_that_are_not_finite_are_refused_and_counted():
    def holes(i, r, z, m):
        x = r[:, 0]
        return np.select([x < -1.0, x > 2.0, x > 1.0], [-np.inf, np.inf, np.nan], 0.0)

    for local in (True, False):
        atoms = Atoms("Ar", positions=[[0, 0, 0]], calculator=LocalEnergyOf(holes))
        mc = MetropolisMC(atoms, 300.0, Displacement(3.0), seed=9, local=local)
        with np.errstate(all="raise"):
            for _ in mc.irun(300):
                assert -1.0 <= atoms.positions[0, 0] <= 1.0
        assert 100 < mc.statistics["Displacement"].nonfinite < 300
        assert mc.energy == 0.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_start_without_a_finite_energy_is_refused(value):
    atoms = Atoms("Ar", positions=[[0, 0, 0]], calculator=Energy(lambda a: value))
    with pytest.raises(ValueError, match="starting structure"):
        MetropolisMC(atoms, 300.0, Displacement(0.1))


@pytest.mark.parametrize("sign", [1, -1])
def test_huge_energies_do_not_overflow(sign):
    """dE = +-1e6 eV at 1 mK: the first never accepted, the second always."""
    atoms = Atoms("Cu4Ni4", positions=np.arange(24.0).reshape(8, 3))
    atoms.calc = Energy(lambda a: sign * 1e6 * (a.numbers[:4] == 28).sum())
    mc = MetropolisMC(atoms, 1e-3, SpeciesSwap(), seed=10)
    with np.errstate(all="raise"):
        mc.run(200)
    assert (atoms.numbers[:4] == 28).sum() == (0 if sign > 0 else 4)
    record = mc.statistics["SpeciesSwap"]
    assert record.accepted < record.attempted
