"""Errors on labelled frames, and what is made of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress
from torch import nn

from ase_andersonn import AndersoNN
from ase_andersonn.lattice.model import GridConfig, GridModel
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.potentials.committee import Committee
from ase_andersonn.training import TrainConfig, evaluate_dataset
from ase_andersonn.training.report import error_text, largest_text, parity_plot
from ase_andersonn.training.setup import build_model


@pytest.fixture
def model(config: TrainConfig) -> EnergyModel:
    return build_model(config, (7, 28, 29)).double()


def test_errors_do_not_depend_on_batches_and_keep_the_order(model: EnergyModel, frames: list[Atoms]) -> None:
    together = evaluate_dataset(model, frames, batch_atoms=100, tolerance=1e-14)
    alone = evaluate_dataset(model, frames, batch_atoms=1, tolerance=1e-14)
    energies = torch.tensor([atoms.get_potential_energy() for atoms in frames])
    for result in (together, alone):
        torch.testing.assert_close(result.labelled.energy, energies.double())
        forces = np.concatenate([atoms.get_forces() for atoms in frames])
        torch.testing.assert_close(result.labelled.forces, torch.tensor(forces))
        assert result.systems.n_per_system.tolist() == [len(atoms) for atoms in frames]
    torch.testing.assert_close(together.predicted.energy, alone.predicted.energy, atol=1e-6, rtol=0)
    torch.testing.assert_close(together.predicted.forces, alone.predicted.forces, atol=1e-6, rtol=0)


def test_errors_against_numpy(model: EnergyModel, frames: list[Atoms]) -> None:
    result = evaluate_dataset(model, frames)
    n = np.array([len(atoms) for atoms in frames])
    energy = (result.predicted.energy - result.labelled.energy).numpy() / n
    forces = (result.predicted.forces - result.labelled.forces).numpy()
    numbers = np.concatenate([atoms.numbers for atoms in frames])
    copper = np.array([29 in atoms.numbers for atoms in frames])
    row = result.errors["all"]
    assert row.energy.mae == pytest.approx(np.abs(energy).mean())
    assert row.energy.rmse == pytest.approx(np.sqrt((energy**2).mean()))
    assert row.forces.mae == pytest.approx(np.abs(forces).mean())
    assert result.errors["Cu"].energy.mae == pytest.approx(np.abs(energy[copper]).mean())
    assert result.errors["N"].forces.rmse == pytest.approx(np.sqrt((forces[numbers == 7] ** 2).mean()))
    assert result.errors["Cu"].stress.count == 9 * copper.sum()
    assert result.errors["N"].stress.count == 0  # molecules
    assert result.errors["Ni"].stress.count == 0  # no labels


def test_the_largest_errors_are_named(model: EnergyModel, frames: list[Atoms]) -> None:
    said = evaluate_dataset(model, frames)
    energy, forces = said.predicted.energy.clone(), said.predicted.forces.clone()
    energy += torch.tensor([0.1 * (atoms.numbers == 29).sum() - 0.2 * (atoms.numbers == 7).sum() for atoms in frames])
    first = sum(len(atoms) for atoms in frames[:7])
    forces[first + 3, 1] += 0.5
    exact = replace(said, labelled=replace(said.predicted, energy=energy, forces=forces))
    lines = largest_text(exact).splitlines()
    assert lines[0].startswith("largest error of an energy: +200.000 meV/atom, frame ")
    assert 7 in frames[int(lines[0].split()[-1])].numbers
    assert float(lines[1].split(": ")[1].split()[0]) == pytest.approx(0.0, abs=1e-3)
    assert lines[2] == "largest error of a force: 500.000 meV/Å, frame 7, atom 3 (Cu)"


def test_what_has_no_labels_has_no_largest_error(model: EnergyModel, frames: list[Atoms]) -> None:
    for atoms in frames:
        del atoms.calc.results["energy"]
    assert largest_text(evaluate_dataset(model, frames)).startswith("largest error of a force")


def test_table_and_picture(model: EnergyModel, frames: list[Atoms], tmp_path: Path) -> None:
    result = evaluate_dataset(model, frames)
    lines = error_text(result.errors).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["all", "N", "Ni", "Cu"]
    assert "energy [meV/atom]" in lines[0]
    assert f"{result.errors['all'].forces.mae * 1e3:.3f}" in lines[2]
    assert lines[3].split()[-1] == "-"
    parity_plot(result, tmp_path / "parity.png")
    assert (tmp_path / "parity.png").read_bytes()[:4] == b"\x89PNG"


def test_a_committee_is_the_mean_of_its_members(config: TrainConfig, frames: list[Atoms]) -> None:
    """As the calculator has it."""
    committee = Committee([build_model(replace(config, seed=seed), (7, 28, 29)).double() for seed in (0, 1, 2)])
    together = evaluate_dataset(committee, frames, tolerance=1e-14)
    calc = AndersoNN(committee, dtype="float64", tol=1e-14, compile=False)
    answers = calc.evaluate(frames)
    energies = [answer["energy"] for answer in answers]
    np.testing.assert_allclose(together.predicted.energy.numpy(), energies, rtol=0, atol=1e-9)
    forces = np.concatenate([answer["forces"] for answer in answers])
    np.testing.assert_allclose(together.predicted.forces.numpy(), forces, rtol=0, atol=1e-9)
    crystal = next(i for i, atoms in enumerate(frames) if "stress" in atoms.calc.results)
    stress = full_3x3_to_voigt_6_stress(together.predicted.stress[crystal].numpy())
    np.testing.assert_allclose(stress, calc.get_stress(frames[crystal]), rtol=0, atol=1e-9)
    error = together.predicted.forces - together.labelled.forces
    assert together.errors["all"].forces.mae == pytest.approx(error.abs().mean().item())
    calc.evaluate(frames)
    assert together.spread is not None
    assert together.spread.energy.mae == pytest.approx(np.mean(calc.diagnostics["energy_std"]))
    of_atoms = np.concatenate(calc.diagnostics["forces_std"])
    assert together.spread.forces.mae == pytest.approx(of_atoms.mean())
    assert together.spread.forces.rmse == pytest.approx(np.sqrt(np.square(of_atoms).mean()))


def test_a_committee_of_grids_is_refused(frames: list[Atoms]) -> None:
    members = [GridModel(GridConfig()), GridModel(GridConfig())]
    nn.init.normal_(next(members[0].parameters()))
    with pytest.raises(ValueError, match="is no potential of atoms"):
        evaluate_dataset(Committee(members), frames)


def test_no_frames(model: EnergyModel) -> None:
    with pytest.raises(ValueError, match="no frames"):
        evaluate_dataset(model, [])


def test_an_unknown_element(model: EnergyModel, frames: list[Atoms]) -> None:
    frames[0].numbers[0] = 79
    with pytest.raises(ValueError, match="Au"):
        evaluate_dataset(model, frames)
