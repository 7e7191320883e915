"""Committees: their mean is a potential, their standard deviation says where the members disagree."""

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from laws import permutation, results, rotation, same, supercell
from small_models import STRUCTURES, rattled, silicon, small_model

from ase_andersonn import AndersoNN, MetropolisMC, load_model, save_model
from ase_andersonn.lattice.density_model import ImageConfig, ImageModel
from ase_andersonn.mc import Displacement
from ase_andersonn.potentials.committee import Committee
from ase_andersonn.testing import check_calculator
from ase_andersonn.tiles import Tiles
from ase_andersonn.training import TrainConfig, train_committee

TIGHT: dict[str, Any] = {"dtype": "float64", "tol": 1e-16, "compile": False}


def members(n: int = 3) -> list[Any]:
    return [small_model(seed) for seed in range(n)]


def committee(n: int = 3, **options: Any) -> AndersoNN:
    return AndersoNN(members(n), **TIGHT | options)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_mean_and_spread_are_those_of_the_members(structure: str) -> None:
    atoms, calc = STRUCTURES[structure](), committee()
    given = results(calc, atoms)
    alone = [results(AndersoNN(model, **TIGHT), atoms) for model in members()]
    same(given, {name: np.mean([one[name] for one in alone], axis=0) for name in given}, 1e-12)
    energy_std = np.std([one["energy"] for one in alone]) / len(atoms)
    away = [np.linalg.norm(one["forces"] - given["forces"], axis=1) for one in alone]
    assert calc.diagnostics["energy_std"] == pytest.approx(energy_std, rel=1e-9)
    np.testing.assert_allclose(calc.diagnostics["forces_std"], np.sqrt(np.mean(np.square(away), axis=0)), rtol=1e-9)
    assert len(calc.diagnostics["members"]) == 3
    assert energy_std > 1e-3


def test_the_contract_of_a_calculator() -> None:
    check_calculator(committee(2), silicon()[:4], tol=1e-6, repeat=1e-6)


@pytest.mark.parametrize("law", [rotation, permutation, supercell])
def test_symmetries(law: Any) -> None:
    law(committee(warm_start=False), silicon())


def test_members_that_are_nearly_alike_have_little_spread() -> None:
    one, other = small_model(), small_model()
    other.output.mul_(1.0 + 1e-9)
    calc = AndersoNN([one, other], **TIGHT, warm_start=False)
    same(results(calc, silicon()), results(AndersoNN(one, **TIGHT, warm_start=False), silicon()), 1e-8)
    assert 0.0 < calc.diagnostics["energy_std"] < 1e-8
    assert 0.0 < calc.diagnostics["forces_std"].max() < 1e-8


def test_many_structures_as_one_by_one() -> None:
    frames = [silicon(), molecule("CH3CH2OH"), rattled(bulk("Cu") * 2)]
    calc = committee()
    many = calc.evaluate(frames, stress=True)
    spreads = calc.diagnostics
    for index, frame in enumerate(frames):
        same(many[index], results(calc, frame))
        for name in ("energy_std", "forces_std"):
            np.testing.assert_allclose(spreads[name][index], calc.diagnostics[name], rtol=1e-6)
        assert (spreads["stress_std"][index] is None) == (not frame.pbc.all())


def test_by_tiles() -> None:
    atoms, tiles = rattled(bulk("Si", cubic=True)) * (4, 1, 1), Tiles(focus=5.5, context=8.0)
    calc = committee(2, tiles=tiles)
    alone = [results(AndersoNN(model, **TIGHT, tiles=tiles), atoms) for model in members(2)]
    same(results(calc, atoms), {name: np.mean([one[name] for one in alone], axis=0) for name in alone[0]}, 1e-12)
    assert all(one["tiles"] == 4 for one in calc.diagnostics["members"])


@pytest.mark.parametrize("tiles", [None, Tiles(focus=5.5, context=4.0)], ids=["whole", "tiles"])
def test_monte_carlo_follows_the_mean(tiles: Tiles | None) -> None:
    atoms = rattled(bulk("Si", cubic=True)) * (4, 1, 1)
    atoms.calc = committee(tiles=tiles, tol=1e-12)
    mc = MetropolisMC(atoms, temperature_K=2000.0, moves=[Displacement(0.4)], seed=3)
    mc.run(15)
    (move,) = mc.statistics.values()
    assert 0 < move.accepted < move.attempted
    fresh = committee(tiles=tiles, tol=1e-12)
    assert mc.energy == pytest.approx(fresh.get_potential_energy(atoms.copy()), abs=1e-6)


def test_a_member_that_fails_leaves_the_others_where_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    atoms, calc = rattled(bulk("Si", cubic=True)) * (4, 1, 1), committee(tiles=Tiles(focus=5.5, context=4.0))
    committed = calc.trial_energy(atoms, np.arange(len(atoms)))
    calc.commit(True)
    last = calc.evaluator.evaluators[-1]  # type: ignore[attr-defined]
    atoms.positions[0] += 0.3
    with monkeypatch.context() as patch:
        patch.setattr(last, "trial_energy", lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            calc.trial_energy(atoms, np.array([0]))
    atoms.positions[0] -= 0.3
    assert calc.trial_energy(atoms, np.array([20])) == pytest.approx(committed, abs=1e-9)


def test_a_move_onto_another_atom_is_refused_and_the_next_is_right() -> None:
    atoms, calc = rattled(bulk("Si", cubic=True)) * (4, 1, 1), committee(2, tiles=Tiles(focus=5.5, context=4.0))
    calc.trial_energy(atoms, np.arange(len(atoms)))
    calc.commit(True)
    before = atoms.positions[0].copy()
    atoms.positions[0] = atoms.positions[1]
    assert calc.trial_energy(atoms, np.array([0])) == np.inf
    calc.commit(False)
    atoms.positions[0] = before + 0.1
    fresh = committee(2, tiles=Tiles(focus=5.5, context=4.0)).get_potential_energy(atoms)
    assert calc.trial_energy(atoms, np.array([0])) == pytest.approx(fresh, abs=1e-9)


def test_of_images() -> None:
    """Their results have no energies of the atoms."""
    config = ImageConfig((6, 14), spacing=0.5, sigma=0.5, cutoff=2.0, focus=2, context=2, n_hidden=6)
    alone, atoms = [], rattled(bulk("SiC", "zincblende", a=4.36, cubic=True))
    for seed in range(2):
        torch.manual_seed(seed)
        alone.append(ImageModel(config))
    energies = [AndersoNN(model, dtype="float64").get_potential_energy(atoms) for model in alone]
    calc = AndersoNN(alone, dtype="float64")
    assert calc.get_potential_energy(atoms) == pytest.approx(np.mean(energies), rel=1e-9)
    assert calc.diagnostics["energy_std"] == pytest.approx(np.std(energies) / len(atoms), rel=1e-6)


def test_combinations_are_those_that_all_members_know() -> None:
    alone = members(2)
    alone[0].card, alone[1].card = {"combinations": [[14], [29]]}, {"combinations": [[14, 29]]}
    assert Committee(alone).card["combinations"] == [[14], [29]]
    calc = AndersoNN(alone, **TIGHT)
    with pytest.warns(UserWarning, match="not trained on structures that hold the elements .*'Cu', 'Si'"):
        calc.get_potential_energy(Atoms("CuSi", positions=[[0.0, 0.0, 0.0], [0.0, 0.0, 2.3]]))
    alone[1].card = {}
    assert Committee(alone).card == {}


def test_a_committee_has_seen_what_all_members_have() -> None:
    alone = members(2)
    alone[0].card = {"min_atoms": 2, "periodic": [False, True], "odd_electrons": True}
    alone[1].card = {"min_atoms": 5, "periodic": [True], "odd_electrons": False}
    assert Committee(alone).card == {"min_atoms": 5, "periodic": [True], "odd_electrons": False}


def test_a_committee_of_committees_is_one_of_all_members() -> None:
    assert len(Committee([Committee(members(2)), small_model(5)]).members) == 3


def test_copies_and_pickles_are_the_same() -> None:
    calc = committee(warm_start=False)
    expected = results(calc, silicon())
    for other in (copy.deepcopy(calc), pickle.loads(pickle.dumps(calc))):
        same(results(other, silicon()), expected, 1e-14)


def test_from_files_and_from_a_folder(tmp_path: Path) -> None:
    for index, model in enumerate(members()):
        save_model(model, tmp_path / f"{index}.safetensors")
    folder, files = AndersoNN(tmp_path, **TIGHT), AndersoNN(sorted(tmp_path.glob("*.safetensors")), **TIGHT)
    given = results(files, silicon())
    same(results(folder, silicon()), given, 1e-15)
    same(results(committee(), silicon()), given, 1e-5)  # files are read in single precision
    loaded = load_model(tmp_path)
    assert isinstance(loaded, Committee)
    with pytest.raises(ValueError, match="member by member"):
        save_model(loaded, tmp_path / "all.safetensors")
    assert not (tmp_path / "all.safetensors").exists()


def test_what_makes_no_committee() -> None:
    with pytest.raises(ValueError, match="at least two members; 1 was given"):
        AndersoNN([small_model()])
    with pytest.raises(ValueError, match="know the same elements; these know H, C, O, Si, Cu; Si"):
        AndersoNN([small_model(), small_model(elements=(14,))])
    with pytest.raises(ValueError, match="two members of the committee are the same model"):
        AndersoNN(["mlearn-pbe", "mlearn-pbe"])
    with pytest.raises(TypeError, match="model is 5; give a name"):
        AndersoNN(5)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="there is no model 'nothing'"):
        AndersoNN(["mlearn-pbe", "nothing"])


def labelled(scales: Any, seed: int, stdev: float = 0.08) -> list[Atoms]:
    """Copper cells at some lattice constants, with the energies and forces of ASE's EMT."""
    frames = []
    for index, scale in enumerate(scales):
        atoms = rattled(bulk("Cu", a=3.6 * scale, cubic=True), stdev, seed=seed + index)
        atoms.calc = EMT()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        frames.append(atoms)
    return frames


def test_the_spread_rises_outside_the_training_data(tmp_path: Path) -> None:
    write(tmp_path / "train.extxyz", labelled(np.linspace(0.97, 1.03, 24), 0))
    config = TrainConfig(
        train=(str(tmp_path / "train.extxyz"),),
        output=str(tmp_path / "run"),
        model={
            "cutoff": 4.0,
            "n_radial": 6,
            "l_max": 2,
            "n_pairs": 2,
            "n_channels": 8,
            "n_edge": 8,
            "n_token": 8,
            "n_hidden": 16,
        },
        validation_fraction=0.1,
        max_epochs=20,
        batch_atoms=48,
        compile=False,
        device="cpu",
    )
    assert all(run.finished for run in train_committee(config, 3))
    calc = AndersoNN(tmp_path / "run" / "ensemble", compile=False, device="cpu")

    def largest_spreads(frames: list[Atoms]) -> tuple[float, float]:
        """Of the energy, and of the force on any atom; medians over the frames."""
        calc.evaluate(frames)
        forces = [spread.max() for spread in calc.diagnostics["forces_std"]]
        return float(np.median(calc.diagnostics["energy_std"])), float(np.median(forces))

    known = largest_spreads(labelled(np.linspace(0.98, 1.02, 5), 100))
    compressed, stretched = labelled([0.85, 0.87, 0.9], 200), labelled([1.15, 1.2, 1.25], 300)
    displaced = labelled(np.linspace(0.98, 1.02, 5), 400, 0.4)
    for strange in (compressed, stretched, displaced):
        assert largest_spreads(strange)[0] > 2.0 * known[0]
    for strange in (compressed, displaced):
        assert largest_spreads(strange)[1] > 2.0 * known[1]
