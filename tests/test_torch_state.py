"""Whatever a caller has set in torch, results are what they are without it, and the caller finds it as it was."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, graphene
from copper_frames import copper
from small_models import ethanol, rattled, silicon, small_calculator, small_model

from ase_andersonn import AndersoNN, MetropolisMC, StructureClassifier, load_model, save_model
from ase_andersonn.backends import FEW_ATOMS, own_torch_state
from ase_andersonn.classifiers.graph_classifier import GraphClassifier, GraphClassifierConfig
from ase_andersonn.classifiers.image_classifier import ImageClassifier, ImageClassifierConfig
from ase_andersonn.engine.energy_forces import evaluate
from ase_andersonn.lattice.density_model import ImageConfig, ImageModel
from ase_andersonn.lattice.model import GridConfig, GridModel
from ase_andersonn.mc import Displacement
from ase_andersonn.structures.graph import graph_from_atoms
from ase_andersonn.tiles import Tiles
from ase_andersonn.training import TrainConfig, evaluate_dataset
from ase_andersonn.training.potential_trainer import Trainer
from ase_andersonn.training.setup import TrainingSetup

State = Callable[[], AbstractContextManager[Any]]


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def everything() -> Iterator[None]:
    with torch.autocast("cpu", dtype=torch.float16), torch.inference_mode(), default_dtype(torch.bfloat16):
        yield


STATES: dict[str, State] = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "inference": torch.inference_mode,
    "no_grad": torch.no_grad,
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "device": lambda: torch.device("meta"),
    "everything": everything,
}


def crystal() -> Atoms:
    return rattled(bulk("Si", cubic=True)) * (2, 2, 1)


@own_torch_state()
def single_model() -> Any:
    return small_model(dtype=torch.float32)


@own_torch_state()
def double_calculator(**options: Any) -> AndersoNN:
    return small_calculator(tol=1e-8, **options)


def of_calculator(**options: Any) -> Any:
    calc, atoms = AndersoNN(single_model(), compile=False, **options), crystal()
    first = [calc.get_property(name, atoms) for name in ("energy", "forces", "stress")]
    atoms.rattle(0.01, seed=1)
    again = [calc.get_property(name, atoms) for name in ("energy", "forces")]
    many = calc.evaluate([atoms, ethanol()])
    return [*first, *again, *(one[name] for one in many for name in ("energy", "forces"))]


def of_trained() -> Any:
    """Weights after two steps, and what is then said of the frames."""
    frames = copper(6)
    config = TrainConfig(train=("unused",), output="unused", device="cpu", batch_atoms=12, max_epochs=1, compile=False)
    model = single_model().requires_grad_(True)
    trainer = Trainer(config, TrainingSetup.from_frames(config, model, frames[:4], frames[4:]), progress_bar=False)
    with own_torch_state():  # as inside `fit`
        for batch in ([0, 1], [2, 3]):
            trainer.step(batch)
    predicted = evaluate_dataset(trainer.model, frames).predicted
    return [
        *(p.detach().numpy() for p in trainer.model.parameters()),
        predicted.energy.numpy(),
        predicted.forces.numpy(),
    ]


def of_monte_carlo() -> Any:
    atoms = crystal()
    atoms.calc = AndersoNN(single_model(), compile=False)
    mc = MetropolisMC(atoms, 2000.0, [Displacement(0.3)], seed=1)
    mc.run(10)
    return [mc.energy, atoms.positions]


def of_spins() -> Any:
    atoms = Atoms("H16", [[x, y, 0.0] for x in range(4) for y in range(4)], cell=[4, 4, 1], pbc=[True, True, False])
    atoms.set_initial_magnetic_moments(np.random.default_rng(0).choice([-1, 1], 16))
    torch.manual_seed(0)
    with own_torch_state():
        model = GridModel(GridConfig(network="equilibrium", n_hidden=8))
    calc = AndersoNN(model, compile=False)
    energies = [calc.get_potential_energy(atoms)]
    atoms.arrays["initial_magmoms"][3] *= -1
    calc.trial_energy(atoms, np.arange(16))
    calc.commit(True)
    for independent in calc.independent_sets(atoms)[:2]:  # type: ignore[attr-defined]
        atoms.arrays["initial_magmoms"][independent] *= -1
        energies.append(calc.trial_energy_changes(atoms, independent))  # type: ignore[attr-defined]
        calc.commit_each(np.ones(len(independent), bool))  # type: ignore[attr-defined]
    return energies


def of_image() -> Any:
    with own_torch_state():
        torch.manual_seed(0)
        model = ImageModel(ImageConfig((6,), n_axes=2, spacing=0.5, focus=2, context=2, network="convolutional"))
    sheet = rattled(graphene("C2", 2.46, size=(3, 4, 1), vacuum=4.0))
    calc = AndersoNN(model, compile=False)
    return [calc.get_potential_energy(sheet), calc.get_forces(sheet)]


def of_labels(kind: str) -> Any:
    with own_torch_state():
        torch.manual_seed(0)
        model: Any = (
            GraphClassifier(GraphClassifierConfig(n_channels=8, n_hidden=16, n_pooled=8, n_features=8))
            if kind == "graph"
            else ImageClassifier(ImageClassifierConfig(n_channels=8, n_hidden=16, n_pooled=8, n_features=8))
        )
    classifier = StructureClassifier(model.eval(), device="cpu")
    labels = [classifier.predict(bulk("Cu")), *classifier.predict_many([bulk("Si"), crystal()], progress_bar=False)]
    assert not [label for label in labels if isinstance(label, Exception)]
    return [[*label.probabilities.values(), label.out_of_distribution] for label in labels]  # type: ignore[union-attr]


DOORS: dict[str, Callable[[], Any]] = {
    "calculator": of_calculator,
    "cold": lambda: of_calculator(warm_start=False, dtype="float64"),
    "tiles": lambda: of_calculator(tiles=Tiles(focus=3.0, context=4.0)),
    "training": of_trained,
    "monte carlo": of_monte_carlo,
    "spins": of_spins,
    "image": of_image,
    "graph labels": lambda: of_labels("graph"),
    "image labels": lambda: of_labels("image"),
}


def settings() -> tuple[Any, ...]:
    return (
        torch.is_autocast_enabled("cpu"),
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.get_num_threads(),
    )


@pytest.mark.parametrize("door", DOORS)
def test_results_do_not_depend_on_what_the_caller_has_set(door: str) -> None:
    expected = DOORS[door]()
    for name, state in STATES.items():
        with state():
            before = settings()
            found = DOORS[door]()
            assert settings() == before, name
        for given, right in zip(found, expected, strict=True):
            np.testing.assert_allclose(np.asarray(given), np.asarray(right), rtol=1e-6, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("state", STATES)
def test_a_model_loaded_inside_works_later(state: str, tmp_path: Path) -> None:
    path, graph = tmp_path / "model.safetensors", graph_from_atoms(silicon(), 4.0)
    save_model(small_model(dtype=torch.float32), path)
    expected = evaluate(load_model(path), graph, forces=True)  # type: ignore[arg-type]
    with STATES[state]():
        model = load_model(path)
        calc = AndersoNN(path, compile=False)
    found = evaluate(model, graph, forces=True)  # type: ignore[arg-type]
    assert torch.equal(found.energy, expected.energy)
    assert found.forces is not None
    assert expected.forces is not None
    assert torch.equal(found.forces, expected.forces)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert calc.get_potential_energy(silicon()) == pytest.approx(float(expected.energy), abs=8e-6)
    evaluate(model.requires_grad_(True), graph, forces=True).energy.sum().backward()  # type: ignore[arg-type]


def test_weights_made_inside_inference_mode_work_later_and_their_changes_are_seen() -> None:
    graph = graph_from_atoms(silicon(), 4.0, dtype=torch.float64)
    expected = evaluate(small_model(), graph, forces=True)
    with torch.inference_mode():
        model = small_model()
        inside = evaluate(model, graph, forces=True)
        calc = AndersoNN(model, dtype="float64", tol=1e-16, compile=False)
    for found in (inside, evaluate(model, graph, forces=True)):
        assert torch.equal(found.energy, expected.energy)
    assert calc.get_forces(silicon()).shape == (8, 3)
    with torch.inference_mode():
        model.cell.out.weight.mul_(0.5)
    assert not torch.equal(evaluate(model, graph).energy, expected.energy)


def test_gradients_are_the_callers_choice_in_evaluate() -> None:
    graph, model = graph_from_atoms(silicon(), 4.0, dtype=torch.float64), small_model().requires_grad_(True)
    assert evaluate(model, graph, forces=True).energy.requires_grad
    for off in (torch.no_grad, torch.inference_mode):
        with off():
            found = evaluate(model, graph, forces=True)
            assert not found.energy.requires_grad
            assert not torch.is_grad_enabled()


def test_the_callers_model_stays_in_training() -> None:
    for model in (small_model().train(), small_model().train().requires_grad_(True)):
        AndersoNN(model, dtype="float64", compile=False).get_potential_energy(silicon())
        assert all(module.training for module in model.modules())
    halfway = small_model().eval()
    halfway.cell.train()
    AndersoNN(halfway, dtype="float64", compile=False)
    assert halfway.cell.training
    assert not halfway.training
    ready = small_model().eval()
    assert AndersoNN(ready, dtype="float64", compile=False).model is ready, "no copy where none is needed"


def test_what_the_caller_has_set_is_put_back_after_an_error() -> None:
    for state in STATES.values():
        with state():
            before = settings()
            with pytest.raises(ValueError, match="the structure has no atoms"):
                double_calculator().get_potential_energy(Atoms())
            assert settings() == before


# Processes


def forked(function: Callable[[], Any]) -> Any:
    """What the function returns in a forked process that has inherited what this one has."""
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=lambda: queue.put(function()))
    process.start()
    process.join(30)
    hangs = process.is_alive()
    if hangs:
        process.kill()
    assert not hangs, "the forked process never ends"
    assert process.exitcode == 0
    return queue.get()


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    x = torch.rand(500, 500)
    (x @ x).tanh().sum()  # starts the threads, which no fork has
    yield
    torch.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("tiles", [None, Tiles(focus=6.0, context=4.0)])
def test_a_forked_process_computes_what_its_parent_does(tiles: Tiles | None) -> None:
    calc, atoms = double_calculator(tiles=tiles), rattled(bulk("Si", cubic=True)) * (3, 3, 4)
    expected = calc.get_potential_energy(atoms)
    assert len(atoms) > FEW_ATOMS

    def child() -> list[float]:
        moved = atoms.copy()
        moved.rattle(0.01, seed=2)
        calc.get_forces(moved)  # with what the parent's calculator holds
        return [float(double_calculator(tiles=tiles).get_potential_energy(atoms)), torch.get_num_threads()]

    energy, n_threads = forked(child)
    assert energy == pytest.approx(expected, abs=1e-6)
    assert n_threads == 2, "torch is left as it was"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.usefixtures("two_threads")
def test_a_forked_process_trains_and_labels() -> None:
    evaluate_dataset(small_model(dtype=torch.float32), copper(2))

    def both() -> list[Any]:
        return [[float(np.abs(x).sum()) for x in of_trained()], of_labels("graph")]

    in_child = forked(both)
    torch.set_num_threads(1)
    for found, expected in zip(in_child, both(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_process_forked_while_a_thread_calculates_does_not_wait_for_it() -> None:
    calc = double_calculator()
    with calc._turn:
        assert forked(lambda: calc.get_potential_energy(silicon())) == pytest.approx(
            double_calculator().get_potential_energy(silicon())
        )


def test_a_context_of_nothing_changes_nothing() -> None:
    before = settings()
    with own_torch_state(), nullcontext():
        assert settings() == before


def test_a_thread_that_ends_does_not_put_the_default_dtype_back_under_another() -> None:
    begun, ended = threading.Event(), threading.Event()
    seen = []

    def other() -> None:
        with own_torch_state():
            begun.set()
            ended.wait(30)
            seen.append(torch.get_default_dtype())

    torch.set_default_dtype(torch.float64)
    try:
        with own_torch_state():
            thread = threading.Thread(target=other)
            thread.start()
            assert begun.wait(30)
        ended.set()
        thread.join()
        assert seen == [torch.float32]
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
