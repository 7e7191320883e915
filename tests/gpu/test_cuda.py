"""A CUDA device says what the CPU says: graphs, solver, energies, forces, stress, training gradients, calculator."""

import copy

import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk
from ase.md.verlet import VelocityVerlet
from small_models import STRUCTURES, message_model, rattled, silicon, small_model, stiff_model

from ase_andersonn import AndersoNN
from ase_andersonn.engine.energy_forces import evaluate
from ase_andersonn.solvers import Anderson, Segments, solve
from ase_andersonn.structures import NeighborList, graph_from_atoms

pytestmark = pytest.mark.gpu
DEVICE = "cuda"
# relative to the largest value; float32 is compared with float64 on the CPU
CLOSE = {torch.float32: 3e-5, torch.float64: 1e-10}
TOL = {torch.float32: 1e-11, torch.float64: 1e-24}
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
MODELS = pytest.mark.parametrize("make", [small_model, message_model])
BATCH = [make() for make in STRUCTURES.values()]


def on(model, dtype):
    return copy.deepcopy(model).to(device=DEVICE, dtype=dtype)


def assert_near(found, right, dtype, factor=1.0):
    right = right.double()
    difference = (found.cpu().double() - right).abs().max()
    assert difference <= factor * CLOSE[dtype] * right.abs().max().clamp(min=1e-3)


def both(model, atoms, dtype, **wanted):
    """The evaluation on the device, and on the CPU in float64."""
    here = graph_from_atoms(atoms, model.cutoff, dtype=dtype, device=DEVICE)
    there = graph_from_atoms(atoms, model.cutoff, dtype=torch.float64)
    found = evaluate(on(model, dtype), here, forces=True, stress=True, tol=TOL[dtype], **wanted)
    return found, evaluate(model, there, forces=True, stress=True, tol=TOL[torch.float64])


def edges_of(graph):
    """Sorted (center, other, vector): the order of an atom's neighbours is free."""
    mask = graph.mask.cpu()
    center = torch.arange(graph.n_atoms)[:, None].expand_as(mask)[mask]
    rows = torch.column_stack((center, graph.neighbors.cpu()[mask], graph.vectors.cpu().double()[mask]))
    return np.array(sorted(rows.round(decimals=6).tolist()))


@pytest.mark.parametrize("with_list", [False, True])
def test_the_neighbor_matrix_is_the_same(with_list):
    for atoms in BATCH:
        listed = NeighborList(4.0) if with_list else None
        here = graph_from_atoms(atoms, 4.0, dtype=torch.float64, device=DEVICE, neighbor_list=listed)
        there = graph_from_atoms(atoms, 4.0, dtype=torch.float64)
        np.testing.assert_allclose(edges_of(here), edges_of(there), atol=2e-6)
        flat, slots = here.vectors.flatten(0, 1), here.mask.flatten()
        torch.testing.assert_close(flat[here.reverse.flatten()[slots]], -flat[slots])
        tensors = [value for value in vars(here).values() if isinstance(value, torch.Tensor)]
        assert all(tensor.device.type == DEVICE for tensor in tensors)


@pytest.mark.parametrize("check_every", [1, 3])
@pytest.mark.parametrize("batched", [False, True])
@DTYPES
def test_the_solver_finds_the_same_equilibrium(dtype, batched, check_every):
    atoms = BATCH if batched else silicon()
    values = []
    for device, precision in ((DEVICE, dtype), ("cpu", torch.float64)):
        model = copy.deepcopy(stiff_model()).to(device=device, dtype=precision)
        graph = graph_from_atoms(atoms, model.cutoff, dtype=precision, device=device)
        with torch.no_grad():
            species = model.species(graph.numbers)
            injection = model.encode(graph.vectors, species, graph.neighbors, graph.mask)
            weights = model.cell_weights()

        def f(z, injection=injection, graph=graph, weights=weights):
            return weights.apply(z, injection, graph.neighbors)

        segments = Segments(graph.system, graph.n_systems) if batched else None
        tol = 2e-6 if dtype == torch.float32 else 1e-12
        found = solve(
            f, injection.u, solver=Anderson(), tol=tol, max_steps=300, segments=segments, check_every=check_every
        )
        assert found.converged.all()
        assert found.value.device.type == device
        values.append(found.value)
    assert_near(*values, dtype, 100.0 if dtype == torch.float32 else 1.0)


@pytest.mark.parametrize("compile", [False, "auto"], ids=["eager", "compiled"])
@MODELS
@DTYPES
def test_energies_forces_and_stress_are_the_same(dtype, make, compile):
    for atoms in (silicon(), BATCH):
        found, right = both(make(), atoms, dtype, compile=compile)
        assert found.energy.dtype == torch.float64
        assert_near(found.energy, right.energy, dtype)
        assert_near(found.energies, right.energies, dtype)
        assert_near(found.forces, right.forces, dtype, 10.0)
        periodic = right.stress.isfinite().all(-1).all(-1)
        assert torch.equal(found.stress.isfinite().all(-1).all(-1).cpu(), periodic)
        assert_near(found.stress[periodic.to(DEVICE)], right.stress[periodic], dtype, 10.0)


@MODELS
def test_single_structures_are_repeatable_bit_for_bit(make):
    model = on(make(), torch.float32)
    runs = []
    for _ in range(2):
        graph = graph_from_atoms(silicon(), model.cutoff, device=DEVICE)
        runs.append(evaluate(model, graph, forces=True, stress=True))
    for name in ("energy", "forces", "stress"):
        assert torch.equal(getattr(runs[0], name), getattr(runs[1], name))


def test_tensor_float_32_is_kept_out_of_the_solver():
    """With TF32 allowed for matrix products the solver still reaches residuals far below its rounding of 1e-3."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        model = on(small_model(), torch.float32)
        graph = graph_from_atoms(BATCH, model.cutoff, device=DEVICE)
        found = evaluate(model, graph, forces=True, tol=1e-10)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    assert found.equilibrium.converged.all()
    assert found.equilibrium.forward.residual.max() <= 1e-5


@pytest.mark.parametrize("compile", [False, "auto"], ids=["eager", "compiled"])
@MODELS
@DTYPES
def test_training_gradients_are_the_same(dtype, make, compile):
    gradients = []
    for device, precision in ((DEVICE, dtype), ("cpu", torch.float64)):
        model = copy.deepcopy(make()).to(device=device, dtype=precision).requires_grad_(True)
        graph = graph_from_atoms([silicon(), silicon()], model.cutoff, dtype=precision, device=device)
        mode = compile if device == DEVICE else False
        out = evaluate(model, graph, forces=True, stress=True, tol=TOL[precision], compile=mode)
        loss = out.energy.square().sum() + out.forces.square().sum() + 10.0 * out.stress.square().sum()
        loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, right in gradients[1].items():
        assert_near(gradients[0][name], right, dtype, 100.0)


@DTYPES
def test_the_calculator_agrees_along_a_trajectory(dtype):
    name = str(dtype).removeprefix("torch.")
    atoms = rattled(bulk("Si", cubic=True), 0.05)
    atoms.calc = AndersoNN(on(small_model(), dtype), device=DEVICE, dtype=name, tol=TOL[dtype])
    dynamics = VelocityVerlet(atoms, 1.0 * units.fs)
    dynamics.run(5)
    assert atoms.calc.diagnostics["device"].startswith(DEVICE)
    reference = atoms.copy()
    reference.calc = AndersoNN(small_model(), device="cpu", dtype="float64", tol=1e-20, warm_start=False)
    scale = np.abs(reference.get_forces()).max()
    assert np.abs(atoms.get_forces() - reference.get_forces()).max() <= 100 * CLOSE[dtype] * scale
    assert atoms.get_potential_energy() == pytest.approx(reference.get_potential_energy(), rel=10 * CLOSE[dtype])
    copied = copy.deepcopy(atoms.calc)
    assert copied.get_potential_energy(atoms.copy()) == pytest.approx(atoms.get_potential_energy(), rel=1e-6)


def test_a_model_visits_both_devices_in_one_process():
    model, atoms = small_model(), silicon()
    energies = [
        AndersoNN(model, device=device, dtype="float64").get_potential_energy(atoms) for device in (DEVICE, "cpu")
    ]
    assert energies[0] == pytest.approx(energies[1], rel=1e-9)
    assert next(model.parameters()).device.type == "cpu"
    assert model.reference.dtype == torch.float64
