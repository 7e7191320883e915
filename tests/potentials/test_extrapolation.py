"""What lies outside of the training data is told of and has a number; what lies inside is not."""

import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from safetensors import safe_open
from small_models import rattled, small_model

from ase_andersonn import AndersoNN
from ase_andersonn import properties as fields
from ase_andersonn.checkpoints.checkpoint import load_model, save_model
from ase_andersonn.nn.neighborhoods import Neighborhoods
from ase_andersonn.potentials.base import MEASURED_BUFFERS
from ase_andersonn.potentials.committee import Committee
from ase_andersonn.potentials.deq_attention import DEQAttention
from ase_andersonn.potentials.extrapolation import cloud, measure_environments, measure_max_density
from ase_andersonn.structures.graph import graph_from_atoms


def scores(calc: AndersoNN, atoms: Atoms) -> np.ndarray:
    calc.get_potential_energy(atoms)
    found: np.ndarray = calc.diagnostics["extrapolation"]
    return found


def strained(atoms: Atoms, strain: float) -> Atoms:
    atoms.set_cell(atoms.cell * (1.0 + strain), scale_atoms=True)
    return atoms


@pytest.mark.parametrize("name", ["mlearn-pbe", "mlearn-pbe-large"])
@pytest.mark.parametrize(("symbol", "a"), [("Cu", 3.63), ("Ni", 3.52), ("Si", 5.47), ("Mo", 3.16), ("Li", 3.44)])
def test_an_equation_of_state_far_from_rest_is_reported_once(name: str, symbol: str, a: float) -> None:
    calc = AndersoNN(name, compile=False)
    with pytest.warns(UserWarning, match="outside of the training data") as warned:
        found = [scores(calc, strained(bulk(symbol, a=a), s)).mean() for s in np.linspace(-0.1, 0.1, 11)]
    assert len(warned) == 1
    assert "surroundings of its atoms" in str(warned[0].message)
    assert warned[0].filename == __file__
    assert max(found[4:7]) < 0.2 < 1.0 < min(found[0], found[-1])
    assert found[:5] == sorted(found[:5], reverse=True)
    assert found[6:] == sorted(found[6:])


@pytest.mark.parametrize("stdev", [0.0, 0.05, 0.1])
def test_what_is_like_the_training_data_is_not_reported(stdev: float) -> None:
    """Thermal displacements in copper are 0.08 Å along an axis at 300 K, 0.15 Å at 1000 K."""
    vacancy = bulk("Cu", cubic=True, a=3.63) * 2
    del vacancy[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for atoms in (bulk("Cu", cubic=True, a=3.63) * 2, vacancy, fcc111("Cu", (2, 2, 4), a=3.63, vacuum=8.0)):
            scores(AndersoNN("mlearn-pbe", compile=False), rattled(atoms, max(stdev, 1e-6)))
        for name in ("CH3CH2OH", "C6H6", "H2O", "H2", "CH3CONH2"):
            scores(AndersoNN("organic", compile=False), rattled(molecule(name), 0.5 * stdev + 1e-6))


@pytest.mark.filterwarnings("ignore:.*training|.*trained")
def test_an_atom_that_comes_too_near_raises_its_number() -> None:
    calc, atoms = AndersoNN("mlearn-pbe", compile=False), bulk("Cu", cubic=True, a=3.63) * 2
    towards = atoms.get_distance(0, 1, mic=True, vector=True)
    found = []
    for share in (0.0, 0.1, 0.2, 0.3, 0.7, 0.8, 0.9):
        moved = atoms.copy()
        moved.positions[0] += share * towards
        found.append(scores(calc, moved)[0])
    assert found[:4] == sorted(found[:4])
    assert found[4:] == sorted(found[4:])
    assert min(found[3:]) > 10.0 > 0.1 > found[0]


def test_the_number_is_in_the_table_of_fields_and_of_batches_and_committees_too() -> None:
    frames = [bulk("Cu", a=3.63), bulk("Si") * 2]
    calc = AndersoNN("mlearn-pbe", compile=False)
    calc.evaluate(frames)
    for atoms, found in zip(frames, calc.diagnostics["extrapolation"], strict=True):
        assert fields.check_shapes({"extrapolation": found}, fields.DIAGNOSTICS) == {"n_atoms": len(atoms)}
        np.testing.assert_allclose(scores(AndersoNN("mlearn-pbe", compile=False), atoms), found, rtol=0.02, atol=1e-3)
    several = Committee([load_model("mlearn-pbe"), load_model("mlearn-pbe-large")])
    assert scores(AndersoNN(several, compile=False), frames[1]).shape == (16,)
    calc = AndersoNN(several, compile=False)
    calc.evaluate(frames)
    for each in zip(
        calc.diagnostics["extrapolation"], *(m["extrapolation"] for m in calc.diagnostics["members"]), strict=True
    ):
        np.testing.assert_array_equal(each[0], np.maximum(*each[1:]))


def test_pairs_count_and_not_sets_of_elements() -> None:
    model = small_model()
    model.card = {
        "combinations": [[1, 6], [1, 8], [6, 8], [14]],
        "pairs": [[1, 6], [1, 8], [6, 8], [1, 1], [6, 6], [8, 8]],
    }
    apart = Atoms("CuC", [[0.0, 0.0, 0.0], [7.0, 0.0, 0.0]])
    model.card["pairs"] += [[29, 29]]
    calc = AndersoNN(model, dtype="float64", compile=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calc.get_potential_energy(molecule("CH3CH2OH"))
        calc.get_potential_energy(apart)
    apart.positions[1, 0] = 2.0
    with pytest.warns(UserWarning, match=r"\['C', 'Cu'\] together, on neighbours C–Cu"):
        calc.get_potential_energy(apart)


def test_an_alloy_of_known_elements_is_said_to_be_unknown_and_not_to_repel() -> None:
    alloy = bulk("Cu", cubic=True, a=3.55)
    alloy.numbers[0] = 28
    with pytest.warns(UserWarning, match="neighbours Ni–Cu") as warned:
        AndersoNN("mlearn-pbe-large", compile=False).get_potential_energy(alloy)
    assert not any("repulsion" in str(warning.message) for warning in warned)


def test_a_cloud_has_its_mean_at_0_and_its_mean_square_at_the_number_of_dimensions() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 5, generator=generator, dtype=torch.float64) @ torch.diag(torch.arange(1.0, 6.0).double())
    x[:, 1] += 0.5 * x[:, 0]
    mean, environment_whitening = cloud(x)
    squares = ((x - mean) @ environment_whitening).square().sum(1)
    assert squares.mean().item() == pytest.approx(5.0, rel=0.01)
    assert cloud(x[:3])[1].isfinite().all()


def test_files_without_what_is_familiar_can_be_read_and_say_nothing(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = small_model(dtype=torch.float32)
    state = {name: value for name, value in model.state_dict().items() if name not in MEASURED_BUFFERS}
    other = copy.deepcopy(model)
    other.load_state_dict(state)
    save_model(other, tmp_path / "model.safetensors", {"training": {}})
    calc = AndersoNN(tmp_path / "model.safetensors", compile=False)
    calc.get_potential_energy(bulk("Si"))
    assert "extrapolation" not in calc.diagnostics


def test_training_frames_are_familiar() -> None:
    model = small_model(dtype=torch.float32)
    assert isinstance(model, DEQAttention)
    frames = [rattled(bulk("Si", cubic=True), 0.08, seed) for seed in range(40)]
    graphs = [graph_from_atoms(f, model.cutoff, dtype=torch.float32, device=torch.device("cpu")) for f in frames]
    measure_max_density(model, graphs)
    measure_environments(model, graphs)
    model.card = {"training": {}}
    calc = AndersoNN(model, compile=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert max(scores(calc, frame).mean() for frame in frames) <= 1.001
    with pytest.warns(UserWarning, match="denser than any in training"):
        assert scores(calc, strained(frames[0].copy(), -0.1)).mean() > 2.0


def test_files_without_what_was_familiar_load_and_say_nothing(tmp_path: Path) -> None:
    """As files of earlier versions; a model in which it was not measured is written without it."""
    model = load_model("mlearn-pbe")
    known = model.state_dict()
    assert isinstance(model, DEQAttention)
    model.environment_whitening.zero_()
    save_model(model, tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        held = set(file.keys())
    assert known.keys() - held == {"environment_mean", "environment_whitening", "environment_max"}
    calc = AndersoNN(tmp_path / "m.safetensors", compile=False)
    atoms = bulk("Cu")
    assert calc.get_potential_energy(atoms) == AndersoNN("mlearn-pbe", compile=False).get_potential_energy(atoms)
    assert "extrapolation" not in calc.diagnostics


def test_no_training_structure_is_pushed_whatever_the_clouds_are_sampled_from() -> None:
    """Sparse ones alone in the sample, dense crystals beside them."""
    model = small_model()
    sparse = [Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.4]]) for _ in range(4)]
    dense = [rattled(bulk("Cu", cubic=True), 0.05, seed) for seed in range(4)]
    graphs = [graph_from_atoms(atoms, model.cutoff, dtype=torch.float64) for atoms in (*sparse, *dense)]
    measure_max_density(model, graphs)
    measure_environments(model, graphs[:4])
    for graph in graphs:
        species = model.species(graph.numbers)
        r = (graph.vectors.square().sum(-1) + 1e-12).sqrt()
        density = model.local_density(r, Neighborhoods(graph.vectors, species, species[graph.neighbors], graph.mask))
        assert bool((density <= model.max_density[species] * (1 + 1e-9)).all())
    before = model.max_density.clone()
    measure_max_density(model, graphs[:4], begun=True)
    assert torch.equal(model.max_density, before)
