"""A simulation in the manner of ASE's dynamics: with real calculators, constraints, files, and wrong input."""

import io

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms, FixBondLength, FixCartesian
from ase.io import Trajectory, read
from mc_systems import Energy

from ase_andersonn.mc import (
    CellChange,
    Displacement,
    Exchange,
    MetropolisMC,
    Move,
    SpeciesSwap,
    SpinFlip,
    Sublattice,
    Transmutation,
    VolumeChange,
)


def flat(symbols="CuNi", **kwargs):
    n = len(Atoms(symbols))
    kwargs = {"cell": [9.0] * 3, "pbc": True, "positions": np.arange(3.0 * n).reshape(n, 3), **kwargs}
    return Atoms(symbols, calculator=Energy(lambda a: 0.0), **kwargs)


def test_swaps_in_an_alloy_with_emt():
    atoms = bulk("Cu", cubic=True) * (2, 2, 1)
    atoms.numbers[::3] = 28
    atoms.calc = EMT()
    composition = np.sort(atoms.numbers)
    mc = MetropolisMC(atoms, 600.0, [SpeciesSwap(), Displacement(0.1)], seed=1, check_interval=40)
    start = mc.energy
    mc.run(120)
    np.testing.assert_array_equal(np.sort(atoms.numbers), composition)
    assert mc.energy != start
    assert mc.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
    assert {name: record.accepted > 0 for name, record in mc.statistics.items()} == {
        "SpeciesSwap": True,
        "Displacement": True,
    }


def test_a_lennard_jones_liquid_at_constant_pressure():
    atoms = bulk("Ar", "fcc", 5.3, cubic=True) * 2
    atoms.calc = LennardJones(sigma=3.4, epsilon=0.0104, rc=5.0, smooth=True)
    mc = MetropolisMC(atoms, 40.0, [Displacement(0.2), VolumeChange(0.0)], weights=[9, 1], seed=2)
    mc.run(150)
    assert mc.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
    assert all(record.accepted for record in mc.statistics.values())
    assert atoms.get_volume() != pytest.approx(10.6**3)


def test_fixed_atoms_and_coordinates_stay():
    atoms = fcc111("Cu", (2, 2, 3), vacuum=6.0)
    atoms.set_constraint([FixAtoms(mask=atoms.get_tags() == 3), FixCartesian([4, 5], (True, False, True))])
    atoms.calc = Energy(lambda a: 0.0)
    before = atoms.positions.copy()
    MetropolisMC(atoms, 300.0, [Displacement(0.1), Displacement(0.1, n_atoms=5)], seed=3).run(200)
    moved = atoms.positions != before
    assert not moved[atoms.get_tags() == 3].any()
    assert (moved[[4, 5]] == [False, True, False]).all()
    assert moved[6:].all()


def test_fixed_atoms_are_not_deleted_and_stay_the_same_ones():
    atoms = flat("ArNeAr2NeAr", tags=[0, 1, 2, 3, 4, 5])
    atoms.set_constraint(FixAtoms([2, 4]))
    mc = MetropolisMC(atoms, 300.0, Exchange("Ar", -0.25), seed=4)
    before = {tag: atoms.positions[i].copy() for tag, i in ((2, 2), (4, 4))}
    counts = []
    mc.attach(lambda: counts.append(len(atoms)))
    mc.run(300)
    assert 3 <= min(counts) < 6 < max(counts)
    (fixed,) = atoms.constraints
    assert atoms.get_tags()[fixed.index].tolist() == [2, 4]
    for index in fixed.index:
        np.testing.assert_array_equal(atoms.positions[index], before[atoms.get_tags()[index]])
    assert (atoms.numbers == 10).sum() == 2


def test_a_deletion_that_is_refused_leaves_the_constraints():
    atoms = flat("Ar6", constraint=FixAtoms([2, 4]))
    atoms.calc = Energy(lambda a: 1e3 * (len(a) != 6))
    mc = MetropolisMC(atoms, 300.0, Exchange("Ar", 0.0), seed=4)
    mc.run(50)
    assert mc.statistics["Exchange"].accepted == 0
    assert atoms.constraints[0].index.tolist() == [2, 4]


def test_spins_are_found_again_when_atoms_come_and_go():
    atoms = flat("Ar3FeArFe", magmoms=[0, 0, 0, 1, 0, 1])
    mc = MetropolisMC(atoms, 300.0, [Exchange("Ar", -0.3), SpinFlip()], seed=4)
    moments, sizes = [], []
    mc.attach(lambda: moments.append(atoms.get_initial_magnetic_moments()[atoms.numbers == 26]))
    mc.attach(lambda: sizes.append(len(atoms)))
    mc.run(300)
    assert min(sizes) < 5
    assert (np.abs(moments) == 1).all()
    flips = (np.diff(moments, axis=0) != 0).sum()
    assert flips == mc.statistics["SpinFlip"].attempted == mc.statistics["SpinFlip"].accepted
    assert (atoms.get_initial_magnetic_moments()[atoms.numbers == 18] == 0).all()


def test_only_the_indices_asked_for_move():
    atoms = flat("Cu6")
    before = atoms.positions.copy()
    MetropolisMC(atoms, 300.0, Displacement(0.1, indices=[1, 3]), seed=5).run(100)
    assert np.flatnonzero((atoms.positions != before).all(1)).tolist() == [1, 3]


def test_steps_adapt_to_their_target_and_then_stay():
    atoms = Atoms("Ar", positions=[[0.0, 0.0, 0.0]], calculator=Energy(lambda a: 0.5 * (a.positions**2).sum()))
    mc = MetropolisMC(atoms, 300.0, Displacement(0.001, target=0.5), seed=6, equilibration=6000)
    sizes = []
    mc.attach(lambda: sizes.append(mc.moves[0].step))
    assert mc.equilibrating
    mc.run(6000)
    assert not mc.equilibrating
    assert mc.statistics["Displacement"].attempted == 0
    mc.run(3000)
    assert len(set(sizes[:6000])) > 20
    assert len(set(sizes[6000:])) == 1
    assert mc.statistics["Displacement"].acceptance == pytest.approx(0.5, abs=0.06)
    assert mc.statistics["Displacement"].attempted == mc.energy_estimate.n == 3000


def test_the_moves_given_are_copied():
    move = Displacement(0.001)
    for _ in range(2):
        MetropolisMC(flat(), 300.0, move, seed=7, equilibration=300).run(300)
    assert move.step == 0.001


def test_observers_logs_and_trajectories_are_called_as_by_ase(tmp_path):
    atoms, calls, once, text = flat("Cu2", magmoms=[1, 1]), [], [], io.StringIO()
    mc = MetropolisMC(
        atoms,
        300.0,
        [Displacement(0.1), SpinFlip()],
        seed=8,
        logfile=text,
        trajectory=tmp_path / "mc.traj",
        loginterval=5,
    )
    mc.attach(lambda *a, **k: calls.append((mc.nsteps, a, k)), 3, "argument", key="word")
    mc.attach(lambda: once.append(mc.nsteps), -4)
    mc.attach(lambda: calls.append("ten"), 10)
    assert mc.run(12) is True
    assert [c for c in calls if c != "ten"] == [(n, ("argument",), {"key": "word"}) for n in (0, 3, 6, 9, 12)]
    assert calls.count("ten") == 2
    assert once == [4]
    assert [line.split()[0] for line in text.getvalue().splitlines()] == ["Step", "0", "5", "10"]
    frames = read(tmp_path / "mc.traj", ":")
    assert [frame.get_potential_energy() for frame in frames] == [0.0] * 3
    np.testing.assert_array_equal(frames[0].get_initial_magnetic_moments(), [1, 1])
    assert list(mc.irun(2)) == [False, False, True]
    assert mc.nsteps == 14
    assert mc.run(0) is True
    with mc as same:
        assert same is mc


def test_trajectories_of_changing_numbers_and_open_ones(tmp_path):
    atoms = flat("Ar2")
    with Trajectory(tmp_path / "a.traj", "w") as trajectory:
        mc = MetropolisMC(atoms, 300.0, Exchange("Ar", -0.25), seed=9, trajectory=trajectory, loginterval=1)
        sizes = []
        mc.attach(lambda: sizes.append(len(atoms)))
        mc.run(50)
    assert [len(frame) for frame in read(tmp_path / "a.traj", ":")] == sizes
    assert len(set(sizes)) > 1


def test_the_energy_written_is_the_running_one_also_after_a_rejected_move(tmp_path):
    atoms = Atoms("Ar", positions=[[0.0, 0.0, 0.0]], calculator=LennardJones())
    atoms += Atoms("Ar", positions=[[1.1, 0, 0]])
    mc = MetropolisMC(atoms, 1000.0, Displacement(0.5), seed=10, trajectory=tmp_path / "mc.traj", loginterval=1)
    energies = []
    mc.attach(lambda: energies.append(mc.energy))
    mc.run(30)
    assert 0 < mc.statistics["Displacement"].accepted < 30
    frames = read(tmp_path / "mc.traj", ":")
    assert [frame.get_potential_energy() for frame in frames] == energies
    for frame, energy in zip(frames, energies, strict=True):
        frame.calc = LennardJones()
        assert frame.get_potential_energy() == pytest.approx(energy)


def test_the_log_on_the_screen(capsys):
    MetropolisMC(flat(), 300.0, Displacement(0.1), logfile="-", loginterval=1, seed=11).run(2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1


def test_mixtures_follow_their_weights_and_names_distinguish_moves():
    atoms = flat()
    moves = [Displacement(0.1), Displacement(0.5), SpeciesSwap()]
    mc = MetropolisMC(atoms, 300.0, moves, weights=[0, 3, 1], seed=12, moves_per_step=10)
    mc.run(200)
    tried = {name: record.attempted for name, record in mc.statistics.items()}
    assert list(tried) == ["Displacement", "Displacement#2", "SpeciesSwap"]
    assert tried["Displacement"] == 0
    assert tried["Displacement#2"] == pytest.approx(1500, abs=100)
    assert sum(tried.values()) == 2000


def test_the_temperature_may_be_changed_for_annealing():
    atoms = Atoms("Ar", positions=[[0.0, 0.0, 0.0]], calculator=Energy(lambda a: (a.positions**2).sum()))
    mc = MetropolisMC(atoms, 3000.0, Displacement(0.3), seed=13)
    mc.run(200)
    mc.temperature_K = 1e-3
    mc.run(2000)
    assert mc.energy < 0.01
    with pytest.raises(ValueError, match="temperature_K is -5"):
        mc.temperature_K = -5


def test_a_move_of_ones_own():
    class Mirror(Move):
        changes = frozenset({"positions"})

        def check(self, context):
            pass

        def propose(self, context):
            from ase_andersonn.mc import Trial

            context.atoms.positions[0] *= -1
            return Trial(np.array([0]), 0.0, None)

        def undo(self, context, trial):
            context.atoms.positions[0] *= -1

        def settings(self):
            return {"move": "Mirror"}

    atoms = Atoms("Ar", positions=[[1.0, 2.0, 3.0]], calculator=Energy(lambda a: 100.0 * (a.positions[0, 0] < 0)))
    mc = MetropolisMC(atoms, 300.0, Mirror(), seed=14)
    mc.run(10)
    assert atoms.positions[0].tolist() == [1.0, 2.0, 3.0]
    assert mc.statistics["Mirror"].attempted == 10


@pytest.mark.parametrize(
    ("atoms", "moves", "kwargs", "message"),
    [
        (flat(), Displacement(), {"temperature_K": 0.0}, "temperature_K is 0.0; it has to be positive"),
        (flat(), Displacement(), {"temperature_K": -1.0}, "positive"),
        (flat(), Displacement(), {"temperature_K": np.nan}, "positive"),
        (flat(), [], {}, "one or several moves"),
        (flat(), "Displacement", {}, "one or several moves"),
        (flat(), Displacement, {}, "one or several moves"),
        (flat(), Displacement(), {"weights": [1, 2]}, "weights is \\[1, 2\\] for 1 move"),
        (flat(), [Displacement(), SpeciesSwap()], {"weights": [1, -2]}, "none negative"),
        (flat(), [Displacement(), SpeciesSwap()], {"weights": [0, 0]}, "not all zero"),
        (flat(), [Displacement(), SpeciesSwap()], {"weights": [1, np.nan]}, "none negative"),
        (flat(), Displacement(), {"seed": -1}, "seed is -1"),
        (flat(), Displacement(), {"seed": "one"}, "seed is 'one'"),
        (flat(), Displacement(), {"moves_per_step": 0}, "moves_per_step is 0"),
        (flat(), Displacement(), {"equilibration": -1}, "equilibration is -1"),
        (flat(), Displacement(), {"check_tolerance": 0.0}, "check_tolerance is 0.0"),
        (flat(), Displacement(), {"check_interval": -1}, "check_interval is -1"),
        (flat(), Displacement(), {"restart_interval": 0}, "restart_interval is 0"),
        (flat(), Displacement(), {"loginterval": 0}, "loginterval is 0"),
        (flat("Cu4"), SpeciesSwap(), {}, "needs atoms of two species"),
        (flat("Cu4Ni"), SpeciesSwap(indices=[0, 1]), {}, "needs atoms of two species"),
        (flat("Cu4Ni"), SpeciesSwap(["Cu", "Au"]), {}, "needs atoms of two species"),
        (flat("Cu4"), Transmutation({"Ni": 0, "Au": 1}), {}, "none that may change"),
        (flat("Cu4", masses=[1] * 4), Transmutation({"Cu": 0, "Au": 1}), {}, "del atoms.arrays"),
        (flat("Cu4"), SpinFlip(), {}, "initial magnetic moment"),
        (flat("Cu2", magmoms=[0, 0]), SpinFlip(), {}, "initial magnetic moment"),
        (flat("Cu2", magmoms=[0, 1]), SpinFlip(indices=[0]), {}, "initial magnetic moment"),
        (flat("Cu2", magmoms=np.ones((2, 3))), SpinFlip(), {}, "collinear"),
        (flat("Cu2", constraint=FixAtoms([0, 1])), Displacement(), {}, "0 of the 2 atoms are free"),
        (flat("Cu2", constraint=FixAtoms([0])), Displacement(indices=[0]), {}, "0 of the 2 atoms are free"),
        (flat("Cu2"), Displacement(n_atoms=3), {}, "2 of the 2 atoms are free"),
        (flat("Cu2"), Displacement(indices=[2]), {}, "the atoms 0 to 1"),
        (flat("Cu2", constraint=FixBondLength(0, 1)), Displacement(), {}, "FixBondLength"),
        (flat("Cu2", pbc=[True, True, False]), VolumeChange(), {}, "three directions"),
        (flat("Cu2", cell=[0, 0, 0], pbc=False), CellChange(), {}, "three directions"),
        (flat("Cu2", constraint=FixAtoms([0])), VolumeChange(), {}, "constraints hold 1"),
        (flat("Cu2", pbc=[True, True, False]), Exchange("Cu", 0.0), {}, "three directions"),
        (flat("Cu2", constraint=FixCartesian([0])), Exchange("Cu", 0.0), {}, "FixCartesian cannot follow"),
        (flat("Cu2", magmoms=[1, 1]), Exchange("Cu", 0.0), {}, "initial magmoms"),
        (flat("Cu2"), [Exchange("Cu", 0.0), Displacement(indices=[0])], {}, "Displacement has indices"),
        (flat("Cu2"), [VolumeChange(0.1), CellChange(0.2)], {}, "the pressure is 0.1 in one move and 0.2 in another"),
        (
            flat("Cu2"),
            [Exchange("Cu", 0.0), Transmutation({"Cu": 0, "Ni": 0})],
            {},
            "Cu is both exchanged with a reservoir and transmuted",
        ),
        (Atoms(calculator=Energy(lambda a: 0.0)), Displacement(), {}, "0 of the 0 atoms"),
        (Atoms("Cu"), Displacement(), {}, "no calculator"),
    ],
)
def test_wrong_input_is_refused_and_nothing_changes(atoms, moves, kwargs, message, tmp_path):
    before, files = atoms.copy(), {"trajectory": tmp_path / "mc.traj", "restart": tmp_path / "mc.npz"}
    files["trajectory"].write_text("kept")
    with pytest.raises(ValueError, match=message):
        MetropolisMC(atoms, moves=moves, **{"temperature_K": 300.0, **files, **kwargs})
    assert atoms == before
    assert files["trajectory"].read_text() == "kept"
    assert not files["restart"].exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Displacement(0.0), "step of Displacement is 0.0"),
        (lambda: Displacement(np.inf), "positive and at most 20.0 Å"),
        (lambda: Displacement(target=1.0), "target of Displacement is 1.0"),
        (lambda: Displacement(n_atoms=0), "n_atoms is 0"),
        (lambda: Displacement(indices=[0.5]), "a list of atom indices"),
        (lambda: SpeciesSwap(["Cu"]), "two species"),
        (lambda: SpeciesSwap(["Cu", "Xx"]), "not a chemical symbol"),
        (lambda: Transmutation({"Cu": 0.0}), "at least two species"),
        (lambda: Transmutation(["Cu", "Ni"]), "at least two species"),
        (lambda: Transmutation({"Cu": 0.0, "Ni": np.nan}), "finite"),
        (lambda: Exchange("Argon", 0.0), "not a chemical symbol"),
        (lambda: Exchange("Ar", np.inf), "finite"),
        (lambda: Exchange("Ar", 0.0, mass=0.0), "mass of Ar is 0.0"),
        (lambda: VolumeChange(np.nan), "pressure is nan"),
        (lambda: VolumeChange(step=2.0), "at most 1.0"),
        (lambda: CellChange(mask=[1, 1, 1]), "six booleans"),
        (lambda: CellChange(mask=[0] * 6), "not all False"),
        (lambda: Sublattice(Displacement()), "SpinFlip or Transmutation"),
    ],
)
def test_moves_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_negative_number_of_steps_is_refused():
    with pytest.raises(ValueError, match="steps is -1"):
        MetropolisMC(flat(), 300.0, Displacement()).run(-1)
