"""Laws of the equilibrium: short forms of `benchmarks/theory`, and the memory of a gradient in the weights."""

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from small_models import cartesian_model, message_model, rattled, silicon, stiff_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ase_andersonn.checkpoints.checkpoint import load_model
from ase_andersonn.engine.energy_forces import evaluate
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.solvers.picard import Picard
from ase_andersonn.structures.graph import Graph, graph_from_atoms
from benchmarks._cells import cell_of
from benchmarks.theory import contraction, energy_error, smoothness

Make = Callable[[], Any]


def norms_of(rows: torch.Tensor, graph: Graph) -> torch.Tensor:
    """`max_i |x_i|₂` of each structure."""
    zero = rows.new_zeros(graph.n_systems)
    return zero.scatter_reduce(0, graph.system, rows.norm(dim=1), "amax")


def packaged() -> EnergyModel:
    return load_model("mlearn-pbe").double().eval().requires_grad_(False)


@pytest.mark.parametrize("make", [packaged, stiff_model, message_model, cartesian_model])
def test_the_cell_is_a_contraction_for_any_structure(make: Make) -> None:
    """`|∂f/∂z t| ≤ γ |t|` in the norm `max_i |t_i|₂`, and the solver converges, for 200 random structures."""
    model = make()
    rng, volumes = np.random.default_rng(0), dict.fromkeys(("Si", "Cu"), 15.0)
    structures = [contraction.draw(rng, volumes) for _ in range(200)]
    found = contraction.solve_all(model, structures)
    assert found["residual"].max() <= contraction.TOL
    assert found["adjoint_residual"].max() <= contraction.TOL

    generator = torch.Generator().manual_seed(0)
    for indices in contraction.batches(structures, model.cutoff):
        cell = cell_of(model, [structures[index] for index in indices])
        z, t = torch.randn(2, *cell.injection.u.shape, dtype=torch.float64, generator=generator)
        for _ in range(5):  # towards the direction that grows most
            pushed = cell.push(z)(t)
            before, after = (norms_of(x, cell.graph) for x in (t, pushed))
            assert (after <= model.config.contraction * (1 + 1e-12) * before).all()
            t = pushed


@pytest.mark.parametrize("make", [packaged, stiff_model, cartesian_model])
def test_the_error_of_the_energy_is_quadratic_in_the_residual(make: Make) -> None:
    """Slopes of log error against log residual, for features and adjoint displaced at random from the solution."""
    slopes = energy_error.measure(make(), "Si", 8, 2)["slopes"]
    assert slopes["L_displaced"] == pytest.approx(2.0, abs=0.05)
    assert slopes["E_displaced"] == pytest.approx(1.0, abs=0.1)  # the bare energy, for contrast


def cell_of_two() -> tuple[Atoms, np.ndarray]:
    return rattled(bulk("Si"), 0.05), np.array([0.48, 0.6, 0.64])


@pytest.mark.parametrize("make", [packaged, message_model, cartesian_model])
def test_forces_do_not_jump_where_an_atom_crosses_the_cutoff(make: Make) -> None:
    """Fourth differences of dense samples leave no room for a jump, the less the closer the samples are."""
    model = make()
    for atoms, direction in (cell_of_two(), smoothness.dimer("Si", model.cutoff)):
        found = smoothness.jumps(model, atoms, direction)
        assert found
        finest = smoothness.summary(found)[-1]
        assert finest["energy"] <= 1e-10
        assert finest["force"] <= 2e-8


class PeakMemory(TorchDispatchMode):
    """Bytes of the tensors that live at once, at most; counted in Python, so the same on every machine."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self.live:
                    self.live[key] = storage.nbytes()
                    weakref.finalize(storage, self.live.pop, key, None)
        self.peak = max(self.peak, sum(self.live.values()))
        return found


@pytest.mark.parametrize("make", [stiff_model, cartesian_model])
def test_the_memory_of_training_does_not_grow_with_the_iterations(make: Make) -> None:
    """Peak of a loss of energy and forces with its gradient in the weights, from few to many iterations."""
    model = make().requires_grad_(True)
    graph = graph_from_atoms([silicon()], model.cutoff, dtype=torch.float64)
    iterations, peaks = [], []
    for tol in (1e-2, 1e-8, 1e-24):
        with PeakMemory() as memory:
            found = evaluate(model, graph, forces=True, tol=tol, solver=Picard(), max_steps=1000)
            assert found.forces is not None
            (found.energy.sum() + found.forces.square().sum()).backward()
        iterations.append(found.equilibrium.evaluations[0])
        peaks.append(memory.peak)
        del found
        model.zero_grad(set_to_none=True)
    assert iterations[2] >= 3 * iterations[0]
    assert max(peaks) <= 1.01 * peaks[0]
