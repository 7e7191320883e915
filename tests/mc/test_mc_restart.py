"""A run that was interrupted goes on bit for bit, whatever it was made of; state files are whole or not there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import read
from mc_systems import Energy, Ising, LocalEnergyOf, lattice

from ase_andersonn.mc import (
    CellChange,
    Displacement,
    Exchange,
    MetropolisMC,
    SpeciesSwap,
    SpinFlip,
    Sublattice,
    Transmutation,
    VolumeChange,
)


def alloy():
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.numbers[::2] = 28
    atoms.rattle(0.02, seed=1)
    return atoms


def emt(**kwargs):
    atoms = alloy()
    atoms.calc = EMT()
    moves = [Displacement(0.2), SpeciesSwap(), Transmutation({"Cu": 0.0, "Ni": 0.3}), VolumeChange(), CellChange()]
    return MetropolisMC(atoms, 900.0, moves, weights=[4, 2, 2, 1, 1], equilibration=60, **kwargs)


def local(**kwargs):
    atoms = alloy()
    atoms.calc = LocalEnergyOf(lambda i, r, z, m: 0.1 * np.sin(r).sum(1) + 0.01 * z)
    moves = [Displacement(0.2), SpeciesSwap(), Transmutation({"Cu": 0.0, "Ni": -0.01}, indices=[0, 1, 2, 5])]
    return MetropolisMC(atoms, 900.0, moves, equilibration=60, **kwargs)


def gas(**kwargs):
    atoms = Atoms("CuAr3", positions=2.0 * np.arange(12).reshape(4, 3), cell=[9.0] * 3, pbc=True, tags=[1, 2, 3, 4])
    atoms = atoms[[1, 0, 2, 3]]
    atoms.set_constraint(FixAtoms([1]))
    atoms.calc = Energy(lambda a: 0.01 * np.cos(a.positions).sum())
    return MetropolisMC(atoms, 300.0, [Exchange("Ar", -0.25), Displacement(2.0)], equilibration=60, **kwargs)


def spins(**kwargs):
    atoms = lattice(6)
    atoms.calc = Ising(6, coupling=0.01)
    return MetropolisMC(atoms, 500.0, [Sublattice(SpinFlip()), SpinFlip()], **kwargs)


class Drifting(Energy):
    """The last bits depend on how often it was asked since it was reset."""

    since = 0

    def get_potential_energy(self, atoms, force_consistent=False):
        self.since += 1
        return super().get_potential_energy(atoms) + 1e-13 * self.since

    def reset(self):
        self.since = 0


def drifting(**kwargs):
    atoms = alloy()
    atoms.calc = Drifting(lambda a: 0.01 * (a.positions**2).sum())
    return MetropolisMC(atoms, 900.0, Displacement(0.2), **kwargs)


SYSTEMS = {"drifting": drifting, "emt": emt, "local": local, "gas": gas, "spins": spins}


def everything(mc):
    """All numbers of a simulation, bit for bit."""
    arrays = {name: values.tobytes() for name, values in mc.atoms.arrays.items()}
    rest = (
        mc.energy,
        mc.nsteps,
        mc.context.rng.bit_generator.state,
        [getattr(move, "step", None) for move in mc.moves],
        mc.statistics,
        mc.energy_estimate.mean,
        [c.index.tolist() for c in mc.atoms.constraints],
    )
    return arrays, mc.atoms.cell.array.tobytes(), repr(rest)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_run_interrupted_anywhere_goes_on_bit_for_bit(name, tmp_path):
    make = SYSTEMS[name]
    path = tmp_path / "mc.npz"
    whole = make(seed=3, restart=tmp_path / "whole.npz", restart_interval=25)
    states = []
    whole.attach(lambda: states.append(everything(whole)), 1)
    whole.run(90)

    first = make(seed=3, restart=path, restart_interval=25)
    steps = first.irun(1000)
    for _ in range(41):  # the last 15 of which are lost
        next(steps)
    del first, steps
    second = make(seed=99, restart=path, restart_interval=25)
    assert second.nsteps == 25
    again = []
    second.attach(lambda: again.append(everything(second)), 1)
    second.run(65)
    assert again == states[26:]
    assert (tmp_path / "whole.npz").exists()


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_seed_repeats_a_run_and_another_does_not(name):
    runs = []
    for seed in (5, 5, 6):
        mc = SYSTEMS[name](seed=seed)
        mc.run(20)
        mc.run(30)
        runs.append(everything(mc)[0])
    assert runs[0] == runs[1] != runs[2]


def test_a_run_without_a_seed_can_be_repeated_too():
    mc = local()
    again = local(seed=mc.seed)
    mc.run(50)
    again.run(50)
    assert everything(mc) == everything(again)


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_a_killed_process_leaves_a_complete_file(tmp_path):
    """The file is written as fast as it can be and the process killed: whatever is there is a state."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_mc_restart import local\n"
        "mc = local(seed=3, restart=sys.argv[2], restart_interval=1)\n"
        "print('ready', flush=True)\n"
        "mc.run(10**9)\n"
    )
    path = tmp_path / "mc.npz"
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(Path(__file__).parent), str(path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "ready\n"
    while not path.exists():
        assert child.poll() is None
    child.kill()
    child.wait()
    child.stdout.close()
    mc = local(seed=0, restart=path)
    whole = local(seed=3, restart=tmp_path / "whole.npz", restart_interval=1)
    whole.run(mc.nsteps)
    assert everything(mc) == everything(whole)


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "mc.npz"
    mc = local(seed=3, restart=path)
    mc.run(10)
    mc.save()
    before = path.read_bytes()
    mc.run(10)

    def full(*args, **kwargs):
        args[0].write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="disk full"):
        mc.save()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["mc.npz"]


@pytest.mark.parametrize("damage", [b"", b"nonsense", "cut", "flip", "other"])
def test_a_damaged_file_is_refused_and_nothing_changes(tmp_path, damage):
    path = tmp_path / "mc.npz"
    mc = local(seed=3, restart=path)
    mc.run(10)
    mc.save()
    data = bytearray(path.read_bytes())
    if damage == "cut":
        damage = bytes(data[: len(data) // 2])
    elif damage == "flip":
        data[len(data) // 3] ^= 255
        damage = bytes(data)
    elif damage == "other":
        np.savez(tmp_path / "other.npz", positions=np.zeros(3))
        damage = (tmp_path / "other.npz").read_bytes()
    path.write_bytes(damage)
    with pytest.raises(ValueError, match="not a readable state file of a Monte Carlo run"):
        local(seed=3, restart=path)
    assert path.read_bytes() == damage


def test_nothing_is_unpickled(tmp_path):
    path = tmp_path / "mc.npz"
    np.savez(path, state=np.array([{"format": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        local(seed=3, restart=path)


def relabelled(atoms):
    atoms.numbers[:] = 28
    return atoms


def stretched(atoms):
    atoms.cell[0] *= 1.01
    return atoms


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature_K": 300.0}, "temperature_K was 500.0 and is 300.0"),
        ({"moves": SpinFlip(indices=[1, 2])}, "moves was"),
        ({"atoms": lattice(5)}, "has 16 atoms and the structure has 25"),
        ({"atoms": relabelled(lattice(4))}, "has .*16 and the structure is Ni16"),
        ({"atoms": stretched(lattice(4))}, "has the cell .* and the structure another. Give the structure"),
    ],
)
def test_another_run_is_refused_and_nothing_changes(tmp_path, change, message):
    def make(atoms=None, temperature_K=500.0, moves=None):
        atoms = lattice(4) if atoms is None else atoms
        atoms.calc = Ising(int(len(atoms) ** 0.5), coupling=0.01)
        return MetropolisMC(atoms, temperature_K, moves or SpinFlip(), seed=1, restart=tmp_path / "mc.npz")

    mc = make()
    mc.run(30)
    mc.save()
    atoms = change.get("atoms", lattice(4))
    before = atoms.copy()
    with pytest.raises(ValueError, match=message):
        make(**{"atoms": atoms, **change})
    assert atoms == before


def test_a_state_of_another_calculator_is_refused_and_nothing_changes(tmp_path):
    path = tmp_path / "mc.npz"
    mc = local(seed=3, restart=path)
    mc.run(10)
    mc.save()
    atoms = alloy()
    atoms.calc = EMT()
    before = atoms.copy()
    with pytest.raises(RuntimeError, match=r"mc\.npz was written with another calculator.*full evaluation"):
        MetropolisMC(atoms, 900.0, mc.moves, equilibration=60, restart=path)
    assert atoms == before


@pytest.mark.parametrize("make", [emt, local, gas, spins])
def test_a_simulation_that_refuses_a_state_goes_on_as_if_nothing_had_been(make):
    other = make(seed=3)
    other.run(30)
    arrays, state = other.get_state()
    state["energy"] += 1.0
    mc, beside = make(seed=4), make(seed=4)
    for simulation in (mc, beside):
        simulation.run(70)
        simulation.get_state()
    before = mc.atoms.copy()
    with pytest.raises(RuntimeError, match="full evaluation"):
        mc.set_state(arrays, state)
    assert mc.atoms == before
    for simulation in (mc, beside):
        simulation.run(30)
    assert mc.atoms == beside.atoms
    assert mc.energy == pytest.approx(beside.energy, abs=1e-12)
    assert (mc.nsteps, mc.seed, mc.statistics) == (beside.nsteps, beside.seed, beside.statistics)


def test_python_objects_are_not_written(tmp_path):
    mc = local(seed=3)
    mc.atoms.arrays["notes"] = np.array([{}] * len(mc.atoms), object)
    with pytest.raises(ValueError, match=r"atoms\.notes have Python objects"):
        mc.save(tmp_path / "mc.npz")
    assert not list(tmp_path.iterdir())


def test_annealing_goes_on_at_its_temperature(tmp_path):
    path = tmp_path / "mc.npz"
    mc = local(seed=3, restart=path)
    mc.run(10)
    mc.temperature_K = 400.0
    mc.save()
    assert local(restart=path).temperature_K == 400.0


def test_a_restart_appends_to_the_trajectory_and_the_log(tmp_path):
    files = {"trajectory": tmp_path / "mc.traj", "logfile": tmp_path / "mc.log", "loginterval": 10}
    path = tmp_path / "mc.npz"
    local(seed=3, restart=path, restart_interval=50, **files).run(50)
    local(seed=3, restart=path, restart_interval=50, **files).run(50)
    frames = read(files["trajectory"], ":")
    assert len(frames) == 11
    steps = [int(line.split()[0]) for line in files["logfile"].read_text().splitlines() if "Step" not in line]
    assert steps == list(range(0, 101, 10))
    local(seed=3, **files)
    assert not files["trajectory"].exists()


def test_the_state_is_json_and_arrays(tmp_path):
    path = tmp_path / "mc.npz"
    mc = gas(seed=3)
    mc.run(50)
    mc.save(path)
    with np.load(path) as file:
        state = json.loads(file["state"].tobytes())
        assert file["atoms.tags"].shape == (len(mc.atoms),)
    assert state["nsteps"] == 50


def test_there_has_to_be_a_file_to_save_to():
    with pytest.raises(ValueError, match="give save"):
        local(seed=3).save()
