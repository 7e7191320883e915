"""What a GPU needs, checked where there is none: on the meta device tensors have a device and a shape but no values.

So these tests fail where something would read a value back from the device (a wait in every iteration) or decide a
shape by one; and a mode that looks at every operation refuses to mix tensors of two devices.
"""

import copy
from dataclasses import replace

import pytest
import torch
from small_models import message_model, silicon, slab, small_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ase_andersonn.engine.compiled import Linearized, compiled_model
from ase_andersonn.engine.energy_forces import forces_from, stresses_from
from ase_andersonn.engine.equilibrium import per_system
from ase_andersonn.engine.training_functions import Solved, Topology
from ase_andersonn.nn.equilibrium_cell import reverse_gates
from ase_andersonn.solvers import Anderson, Broyden, Picard, Segments
from ase_andersonn.solvers.base import Point
from ase_andersonn.solvers.extrapolation import Predictor
from ase_andersonn.structures import graph_from_atoms

META = torch.device("meta")


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of two devices; numbers (tensors without dimensions) may come from anywhere."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = tree_leaves((args, kwargs or {}))
        devices = {str(x.device) for x in given if isinstance(x, torch.Tensor) and x.ndim > 0}
        if len(devices) > 1:
            raise RuntimeError(f"{func} mixes {sorted(devices)}")
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def one_device():
    with OneDevice():
        yield


class Problem:
    """A model and a graph on the meta device, and all that `evaluate` computes between two looks at the device."""

    def __init__(self, atoms, make=small_model):
        model = make(dtype=torch.float32)
        graph = graph_from_atoms(atoms, model.cutoff)
        self.model = copy.deepcopy(model).to(META)
        moved = {name: value.to(META) for name, value in vars(graph).items() if isinstance(value, torch.Tensor)}
        self.graph = replace(graph, **moved)
        self.species = torch.zeros_like(self.graph.numbers)
        self.compiled = compiled_model(self.model, META, False)
        self.cell = self.model.cell_weights()
        self.segments = None
        if graph.n_systems > 1:
            self.segments = Segments(self.graph.system, graph.n_systems)
            self.segments.__dict__["lengths"] = self.graph.n_per_system  # counted once a solve, with a wait
        self.encoding = self.compiled.encoder.encode(self.graph, self.species, keep=True)

    def f(self, z):
        return self.compiled.apply(self.cell, z, self.encoding.injection, self.graph.neighbors)


@pytest.fixture(params=[(1, small_model), (2, small_model), (2, message_model)], ids=["one", "batch", "message"])
def problem(request):
    count, make = request.param
    return Problem([silicon(), slab()][:count], make)


def on_device(*tensors):
    return all(tensor.device.type == "meta" for tensor in tensors)


@pytest.mark.parametrize("solver", [Anderson(), Anderson(mixing=0.7), Picard(), Broyden()], ids=str)
@torch.no_grad()
def test_nothing_is_read_back_between_two_checks(problem, solver):
    n = problem.graph.n_systems
    z = problem.encoding.injection.u
    active = torch.ones(n, dtype=torch.bool, device=META)
    state = solver.init(z, problem.segments)
    for evaluation in range(16):
        if evaluation == 10:
            state = solver.restart(state, active, torch.ones(n, dtype=torch.float64, device=META))
        point = Point.of(z, problem.f(z), problem.segments)
        z, state = solver.step(state, point, active)
        assert on_device(z, point.squares)
    assert solver.resume(state, z, problem.segments) is not None


@torch.no_grad()
def test_geometry_forces_and_stress_stay_on_the_device(problem):
    graph, compiled, injection = problem.graph, problem.compiled, problem.encoding.injection
    z = problem.f(injection.u)
    residual, slope, source, energies = compiled.linearize(z, injection, graph.neighbors, problem.cell, problem.species)
    gates = reverse_gates(injection.gates, graph.reverse)
    adjoint = compiled.vjp(problem.cell, source, slope, gates, graph.neighbors)
    assert on_device(residual)
    state = Linearized(problem.cell.send(z), slope, problem.cell)
    gradient = compiled.edge_gradient(graph, problem.species, problem.encoding, state, adjoint)
    energies = energies + problem.encoding.pair
    references = problem.model.reference_energies(problem.species)
    assert references.dtype == torch.float64
    assert on_device(forces_from(gradient, graph), per_system(stresses_from(gradient, graph), graph))
    assert on_device(per_system(energies.double() + references, graph))


def test_gradients_in_the_weights_stay_on_the_device(problem):
    graph, compiled, injection, species = problem.graph, problem.compiled, problem.encoding.injection, problem.species
    with torch.no_grad():
        z = problem.f(injection.u)
        slope = compiled.linearize(z, injection, graph.neighbors, problem.cell, species)[1]
        state = Linearized(problem.cell.send(z), slope, problem.cell)
        cotangent = compiled.injection_cotangent(graph, injection, state, z)
        topology = Topology(species, graph.neighbors, graph.reverse)
        solved = Solved(z, z, slope, injection, problem.cell)
        tangents = compiled.tangents(cotangent, topology, solved, (2, 2))
        gradients, of_injection = compiled.weight_gradient(
            dict(problem.model.named_parameters()),
            injection,
            (z, z),
            (*cotangent, tangents.z, tangents.adjoint),
            torch.ones_like(z[:, 0]),
            topology,
        )
    assert on_device(*cotangent, *tangents, *of_injection, *gradients.values())


def test_back_propagation_through_the_encoder_stays_on_the_device(problem):
    graph, species = problem.graph, problem.species
    problem.model.requires_grad_(True)
    vectors = torch.zeros_like(graph.vectors).requires_grad_()
    outputs = problem.compiled.functions.encode(vectors, species, graph.neighbors, graph.mask)
    (gradient,) = torch.autograd.grad(outputs, vectors, [torch.ones_like(o) for o in outputs], create_graph=True)
    forces, stress = forces_from(gradient, graph), per_system(stresses_from(gradient, graph), graph)
    (forces.square().sum() + stress.square().sum()).backward()
    found = [p.grad for p in problem.model.parameters() if p.grad is not None]
    assert found
    assert on_device(gradient, forces, stress, *found)


def test_the_history_of_a_trajectory_stays_on_the_device():
    predictor, u = Predictor(3), torch.zeros(8, 4, device=META)
    for _ in range(5):
        predictor.update(u, u, u)


def test_a_tensor_on_the_wrong_device_is_noticed(problem):
    problem.cell = small_model(dtype=torch.float32).cell_weights()
    with pytest.raises(RuntimeError, match="mixes"):
        problem.f(problem.encoding.injection.u)


def test_a_value_that_is_read_back_is_noticed(problem):
    with pytest.raises(RuntimeError, match="meta"):
        problem.encoding.injection.u.sum().item()
