"""torch-sim moves structures by this package's potentials, with the energies, forces and stress of the calculator."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch_sim", reason="torch-sim is not installed")

import torch
import torch_sim
from ase import units
from ase.build import bulk, molecule
from ase.stress import voigt_6_to_full_3x3_stress
from torch_sim.integrators.nve import nve
from torch_sim.models.interface import validate_model_outputs

from ase_andersonn import AndersoNN
from ase_andersonn.integrations.torch_sim import TorchSimModel
from ase_andersonn.workflows.relax import relax_many

pytestmark = pytest.mark.integrations
CPU, DOUBLE = torch.device("cpu"), torch.float64


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_engines_own_check() -> None:
    validate_model_outputs(TorchSimModel("universal", compile=False), CPU, DOUBLE)


@pytest.mark.parametrize("name", ["mlearn-pbe", "universal", "organic"])
def test_as_the_calculator(name: str) -> None:
    if name == "organic":
        frames = [molecule("H2O"), molecule("CH3OH")]
    else:
        frames = [bulk("Si", cubic=True), bulk("Cu") * (2, 1, 1)]
    for k, atoms in enumerate(frames):
        atoms.rattle(0.05, seed=k)
    options: dict[str, Any] = {"dtype": "float64", "tol": 1e-10, "compile": False}
    calc = AndersoNN(name, warm_start=False, **options)
    model = TorchSimModel(name)
    model.calculator = calc
    state = torch_sim.io.atoms_to_state(frames, CPU, DOUBLE)
    found = model(state)
    ends = np.cumsum([len(atoms) for atoms in frames])
    for k, atoms in enumerate(frames):
        wanted = calc.get_potential_energy(atoms), calc.get_forces(atoms)
        assert float(found["energy"][k]) == pytest.approx(wanted[0], abs=1e-8)
        np.testing.assert_allclose(found["forces"][ends[k] - len(atoms) : ends[k]], wanted[1], atol=1e-7)
        if atoms.pbc.all():
            np.testing.assert_allclose(
                found["stress"][k], voigt_6_to_full_3x3_stress(calc.get_stress(atoms)), atol=1e-8
            )
        else:
            assert bool(found["stress"][k].isnan().all())


def test_constant_energy() -> None:
    """Two crystals at once: no drift in 0.2 ps, beside the fluctuations of a step of 1 fs."""
    frames = [bulk("Si", cubic=True), bulk("Cu", cubic=True)]
    model = TorchSimModel("mlearn-pbe", compile=False)
    step, heat = (torch.tensor(value, dtype=DOUBLE) for value in (1.0 * units.fs, 600.0 * units.kB))
    begin, advance = nve(model, dt=step, kT=heat, seed=0)
    state = begin(torch_sim.io.atoms_to_state(frames, CPU, DOUBLE))
    totals = []
    for _ in range(200):
        state = advance(state)
        moving = {"masses": state.masses, "momenta": state.momenta, "system_idx": state.system_idx}
        totals.append((state.energy + torch_sim.calc_kinetic_energy(**moving)).numpy())
    per_atom = np.array(totals) / [len(atoms) for atoms in frames]
    assert np.ptp(per_atom, axis=0).max() < 1e-3
    assert np.abs(np.polyfit(np.arange(200), per_atom, 1)[0]).max() < 1e-6


def test_relaxed_in_a_batch_as_by_the_workflow() -> None:
    frames = [bulk("Si", a=5.6), bulk("Cu", a=3.5, cubic=True)]
    for k, atoms in enumerate(frames):
        atoms.rattle(0.05, seed=k)
    done = torch_sim.optimize(
        torch_sim.io.atoms_to_state(frames, CPU, DOUBLE),
        TorchSimModel("mlearn-pbe", compile=False),
        optimizer=torch_sim.optimizers.fire,
        convergence_fn=torch_sim.generate_force_convergence_fn(force_tol=1e-3, include_cell_forces=False),
        max_steps=500,
    )
    wanted = relax_many(frames, AndersoNN("mlearn-pbe", compile=False), cell="fixed", fmax=1e-3)
    for energy, one in zip(done.energy.tolist(), wanted, strict=True):
        assert one.atoms is not None
        assert energy / len(one.atoms) == pytest.approx(one.energy / len(one.atoms), abs=1e-5)
