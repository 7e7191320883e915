"""Energy, forces and stress of batches, and the error of the energy."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from graphs import TIGHT, graph_of
from small_models import (
    STRUCTURES,
    cartesian_model,
    ethanol,
    message_model,
    silicon,
    skewed,
    slab,
    small_model,
    stiff_model,
)
from test_weight_gradient_of_loss import plain_model

from ase_andersonn.engine.energy_forces import evaluate
from ase_andersonn.engine.equilibrium import Start
from ase_andersonn.nn.neighborhoods import Neighborhoods
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.solvers.base import Solver
from ase_andersonn.solvers.picard import Picard
from ase_andersonn.structures.graph import Graph, graph_from_atoms


def test_only_what_is_asked_for_is_given() -> None:
    model, graph = small_model(), graph_of("bulk")
    energy, forces = evaluate(model, graph), evaluate(model, graph, forces=True)
    assert (energy.forces, energy.stress, energy.stresses) == (None, None, None)
    assert forces.forces is not None
    assert forces.stress is None
    both = evaluate(model, graph, stress=True)
    assert both.forces is None
    assert both.stress is not None
    assert torch.equal(energy.energy, both.energy)


def test_stress_of_a_structure_without_a_volume_is_not_a_number() -> None:
    evaluation = evaluate(small_model(), graph_of("bulk", "slab", "skewed"), forces=True, stress=True)
    assert evaluation.stress is not None
    assert torch.isfinite(evaluation.stress).all(-1).all(-1).tolist() == [True, False, True]


@pytest.mark.parametrize("make", [small_model, message_model, cartesian_model])
def test_an_atom_s_stress_is_the_symmetric_virial_of_its_edges(make: Callable[[int], EnergyModel]) -> None:
    """`σ_i = (1/2V) Σ_k (d_ik ⊗ g_ik + g_ik ⊗ d_ik)`, with `g = dE/dd` by back-propagation through all steps."""
    model, graph = make(4), graph_of("bulk", "skewed")
    stresses = evaluate(model, graph, stress=True, tol=TIGHT).stresses
    assert stresses is not None
    assert torch.equal(stresses, stresses.transpose(1, 2))
    species, vectors = model.species(graph.numbers), graph.vectors.clone().requires_grad_()
    injection, weights = model.encode(vectors, species, graph.neighbors, graph.mask), model.cell_weights()
    z = injection.u
    for _ in range(120):
        z = weights.apply(z, injection, graph.neighbors)
    near = Neighborhoods(vectors, species, species[graph.neighbors], graph.mask)
    energies = model.readout(z, species) + model.pair_energies(near)
    (gradient,) = torch.autograd.grad(energies.sum(), vectors)
    virial = torch.einsum("ikx,iky->ixy", vectors, gradient).detach()
    volume = torch.tensor([STRUCTURES[name]().get_volume() for name in ("bulk", "skewed")], dtype=torch.float64)
    expected = 0.5 * (virial + virial.mT) / volume[graph.system][:, None, None]
    if make is cartesian_model:  # what others send as scalars is turned with nothing: symmetric by itself
        assert float((virial - virial.mT).norm() / virial.norm()) > 1e-6
    torch.testing.assert_close(stresses, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("tol", [1e-6, 1e-4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_structure_does_not_feel_its_batch_mates(dtype: torch.dtype, tol: float) -> None:
    model, names = small_model(dtype=dtype), list(STRUCTURES)
    together = evaluate(model, graph_of(*names, dtype=dtype), forces=True, tol=tol)
    assert together.forces is not None
    forces = together.forces.split(together.n_per_system.tolist())
    for index, name in enumerate(names):
        alone = evaluate(model, graph_of(name, dtype=dtype), forces=True, tol=tol)
        n = len(alone.energies)
        assert float((together.energy[index] - alone.energy[0]).abs()) / n <= tol
        assert alone.forces is not None
        scale = max(1.0, float(alone.forces.abs().max()))
        assert float((forces[index] - alone.forces).abs().max()) <= 3 * math.sqrt(tol) * scale


def bare_energy(model: EnergyModel, graph: Graph, z: torch.Tensor) -> torch.Tensor:
    """`E(z)` of each structure, without the correction."""
    species = model.species(graph.numbers)
    pairs = model.pair_energies(Neighborhoods(graph.vectors, species, species[graph.neighbors], graph.mask))
    energies = model.readout(z, species) + pairs + model.reference_energies(species)
    return energies.new_zeros(graph.n_systems).index_add(0, graph.system, energies)


def test_error_of_the_energy_is_quadratic_in_the_residual() -> None:
    """Slopes 2 of `L` and 1 of `E(z)` in a log-log plot of errors against residuals, averaged over structures."""
    graph, points = graph_of("bulk", "slab", "molecule"), []
    for model in map(stiff_model, range(4)):
        exact = evaluate(model, graph, tol=TIGHT).energy
        for steps in range(4, 19, 2):
            evaluation = evaluate(model, graph, solver=Picard(), max_steps=steps, tol=1e-300)
            errors = evaluation.energy - exact, bare_energy(model, graph, evaluation.equilibrium.z) - exact
            points.append(torch.stack([evaluation.equilibrium.forward.residual, *(e.abs() for e in errors)]))
    means = torch.stack(points).log().view(4, 8, 3, 3).mean((0, 3)).numpy()  # seeds, steps, quantities, structures
    residual, error, bare = means.T
    assert np.polyfit(residual, error, 1)[0] == pytest.approx(2.0, abs=0.2)
    assert np.polyfit(residual, bare, 1)[0] == pytest.approx(1.0, abs=0.1)
    assert (error < bare - 1).all()


def test_error_of_the_energy_is_estimated() -> None:
    """`|⟨λ, f(z) − z⟩|` bounds the error of the energy, and is brought below the tolerance."""
    model, graph = stiff_model(1), graph_of("bulk", "molecule")
    exact = evaluate(model, graph, tol=TIGHT).energy
    for tol in (1e-3, 1e-5, 1e-7, 1e-9):
        evaluation = evaluate(model, graph, tol=tol)
        assert bool(evaluation.equilibrium.converged.all())
        assert bool((evaluation.equilibrium.error <= tol).all())
        assert bool(((evaluation.energy - exact).abs() / evaluation.n_per_system <= tol).all())


def test_not_reaching_the_equilibrium_is_reported() -> None:
    evaluation = evaluate(small_model(), graph_of("bulk", "molecule"), max_steps=2, tol=1e-20)
    assert evaluation.equilibrium.converged.tolist() == [False, False]


def test_a_start_from_the_solution_needs_one_evaluation() -> None:
    model, graph = small_model(), graph_of("slab")
    found = evaluate(model, graph, tol=1e-16).equilibrium
    again = evaluate(model, graph, tol=1e-12, begin=lambda _: Start(found.z, found.adjoint))
    assert again.equilibrium.forward.evaluations == 1
    assert again.equilibrium.backward.evaluations == 1


@pytest.mark.parametrize("solver", [Picard()], ids=["picard"])
def test_the_equilibrium_does_not_depend_on_the_solver(solver: Solver) -> None:
    model, graph = small_model(), graph_of("bulk", "slab")
    expected, given = (evaluate(model, graph, tol=1e-20, **kw) for kw in ({}, {"solver": solver, "max_steps": 200}))
    torch.testing.assert_close(given.energy, expected.energy, rtol=0, atol=1e-12)
    torch.testing.assert_close(given.equilibrium.z, expected.equilibrium.z, rtol=0, atol=1e-9)


@pytest.mark.parametrize("make", [small_model, plain_model, message_model, stiff_model, cartesian_model])
def test_equilibrium_is_far_from_its_start(make: Callable[[], EnergyModel]) -> None:
    """The tests above would say little of a cell that hardly does anything."""
    model, graph = make(), graph_of("bulk")
    eq = evaluate(model, graph, tol=TIGHT).equilibrium
    u = eq.encoding.injection.u
    assert float((eq.z - u).norm() / eq.z.norm()) > 0.1
    assert float((bare_energy(model, graph, u) - bare_energy(model, graph, eq.z)).abs()) > 0.01


def test_an_element_that_the_model_does_not_know() -> None:
    atoms = silicon()
    atoms.numbers[:2] = [79, 104]
    text = "contains Au, Rf; this model knows H, C, O, Si, Cu. No packaged model knows Au, Rf: train one"
    with pytest.raises(ValueError, match=text):
        evaluate(small_model(), graph_from_atoms(atoms, 4.0, dtype=torch.float64))


@pytest.mark.parametrize("make", [silicon, skewed, slab, ethanol])
def test_float32_is_close_to_float64(make: Any) -> None:
    results = []
    for dtype in (torch.float32, torch.float64):
        model = small_model(dtype=torch.float32).to(dtype)
        results.append(evaluate(model, graph_from_atoms(make(), 4.0, dtype=dtype), forces=True, tol=1e-9))
    single, double = results
    assert float((single.energies - double.energies).abs().max()) <= 1e-5 * float(double.energies.abs().max())
    assert single.forces is not None
    assert double.forces is not None
    torch.testing.assert_close(
        single.forces.double(), double.forces, rtol=0, atol=1e-4 * float(double.forces.abs().max())
    )
