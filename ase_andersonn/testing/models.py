"""Conformance checks for an architecture of an equilibrium potential: the laws of physics and of its derivatives."""

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from ase import Atoms

from ase_andersonn.checkpoints.checkpoint import load_model, save_model
from ase_andersonn.engine.energy_forces import Evaluation, evaluate
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.structures.graph import graph_from_atoms

from .calculators import ConformanceError

TOL = 1e-20
"""eV/atom: energy tolerance of the solves, at which relative residuals are 1e-10."""
STEP = 1e-4
"""Å, or share of the weights: step of central differences."""


def check_energy_model(model: EnergyModel, atoms: Atoms) -> None:
    """Check a model on a structure, in float64; differences are relative to the largest component, or to 1.

    - convergence: every solve reaches a relative residual of 1e-10;
    - forces: `F = −∂E/∂x` by central differences, to 1e-5;
    - symmetry: energy and forces under translation, rotation, reflection and permutation, to 1e-8;
    - extensivity: twice the cell along a periodic direction, or two distant copies, have twice the energy, to 1e-8;
    - smoothness: a pair at (1 ± 1e-5) cutoff, energies to 1e-8 eV and forces to 1e-6 eV/Å of those without neighbours;
    - weights: `∂(E + F·c)/∂w` along a random direction by central differences, to 1e-5, at weights moved by 0.05;
    - file: a saved and loaded model has the same energy, to 1e-10.

    Args:
        model: the model; it stays as it is.
        atoms: a structure of its elements without symmetry, a few atoms.

    Raises:
        ConformanceError: if a law is broken; all failures are listed.
    """
    model = copy.deepcopy(model).double().requires_grad_(False)
    checks: tuple[Callable[[EnergyModel, Atoms], None], ...] = (
        _convergence,
        _forces,
        _symmetry,
        _extensivity,
        _smoothness,
        _weights,
        _file,
    )
    failures = []
    for check in checks:
        try:
            check(model, atoms)
        except Exception as error:
            kind = "" if isinstance(error, ConformanceError) else f"{type(error).__name__}: "
            failures.append(f"- {check.__name__[1:]}: {kind}{error}")
    if failures:
        raise ConformanceError(f"{type(model).__name__} failed {len(failures)} checks:\n" + "\n".join(failures))


def _evaluated(model: EnergyModel, *frames: Atoms) -> Evaluation:
    graph = graph_from_atoms(list(frames), model.edge_cutoff, dtype=torch.float64)
    return evaluate(model, graph, forces=True, tol=TOL, max_steps=500)


def _same(given: torch.Tensor | None, expected: torch.Tensor | None, tol: float, name: str) -> None:
    assert given is not None
    assert expected is not None
    error = float((given - expected).abs().max())
    scale = max(1.0, float(expected.abs().max()))
    if not error <= tol * scale:
        raise ConformanceError(f"{name}: a difference of {error:.1e}; allowed is {tol * scale:.1e}")


def _convergence(model: EnergyModel, atoms: Atoms) -> None:
    found = _evaluated(model, atoms).equilibrium
    if not bool(found.converged.all()):
        raise ConformanceError(f"the fixed point has a residual of {float(found.forward.residual.max()):.1e}")


def _forces(model: EnergyModel, atoms: Atoms) -> None:
    moved = [atoms.copy() for _ in range(6 * len(atoms))]
    for index, frame in enumerate(moved):
        frame.positions[index // 6, index % 6 // 2] += STEP * (1 if index % 2 else -1)
    low, high = _evaluated(model, *moved).energy.view(len(atoms), 3, 2).unbind(-1)
    _same(_evaluated(model, atoms).forces, (low - high) / (2.0 * STEP), 1e-5, "forces")


def _symmetry(model: EnergyModel, atoms: Atoms) -> None:
    rng = np.random.default_rng(0)
    turn, order = np.linalg.qr(rng.normal(size=(3, 3)))[0], rng.permutation(len(atoms))
    expected = _evaluated(model, atoms)
    assert expected.forces is not None
    shift = atoms.copy()
    shift.positions += [1.2, -7.7, 0.4]
    for name, frame, forces in (
        ("translation", shift, expected.forces),
        ("permutation", atoms[order], expected.forces[torch.from_numpy(order)]),
        *(
            (name, _turned(atoms, q), expected.forces @ torch.from_numpy(q.T))
            for name, q in (("rotation", turn * np.linalg.det(turn)), ("reflection", -turn * np.linalg.det(turn)))
        ),
    ):
        found = _evaluated(model, frame)
        _same(found.energy, expected.energy, 1e-8, f"energy under {name}")
        _same(found.forces, forces, 1e-8, f"forces under {name}")


def _turned(atoms: Atoms, turn: np.ndarray) -> Atoms:
    turned: Atoms = atoms.copy()
    turned.set_cell(atoms.cell.array @ turn.T)
    turned.set_positions(atoms.positions @ turn.T)
    return turned


def _extensivity(model: EnergyModel, atoms: Atoms) -> None:
    if atoms.pbc.any():
        double = atoms * tuple(2 if axis == int(atoms.pbc.argmax()) else 1 for axis in range(3))
    else:
        far = atoms.copy()
        far.positions[:, 0] += np.ptp(atoms.positions[:, 0]) + 2.0 * model.receptive_field
        double = atoms + far
    _same(_evaluated(model, double).energy, 2.0 * _evaluated(model, atoms).energy, 1e-8, "energy of two copies")


def _smoothness(model: EnergyModel, atoms: Atoms) -> None:
    numbers = [atoms.numbers[0], atoms.numbers[-1]]
    near, far = (
        _evaluated(model, Atoms(numbers, [[0.0, 0.0, 0.0], [r, 0.0, 0.0]]))
        for r in (model.cutoff * (1.0 - 1e-5), model.cutoff * (1.0 + 1e-5))
    )
    _same(near.energy, far.energy, 1e-8, "energy at the cutoff")
    _same(near.forces, far.forces, 1e-6, "forces at the cutoff")


def _weights(model: EnergyModel, atoms: Atoms) -> None:
    model = copy.deepcopy(model).requires_grad_()
    generator = torch.Generator().manual_seed(0)
    weights = list(model.parameters())
    directions = [torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in weights]
    with torch.no_grad():  # matrices fresh from orthogonal initialisation are at the kink of `nn.blocks.bounded`
        for weight in weights:
            weight.add_(0.05 * torch.randn(weight.shape, dtype=weight.dtype, generator=generator))
    along = torch.randn(len(atoms), 3, dtype=torch.float64, generator=generator)

    def loss() -> torch.Tensor:
        found = _evaluated(model, atoms)
        assert found.forces is not None
        return found.energy.sum() + (found.forces * along).sum()

    gradients = torch.autograd.grad(loss(), weights, allow_unused=True)
    given = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True) if g is not None)
    values = []
    with torch.no_grad():
        for step in (STEP, -2.0 * STEP):
            for weight, direction in zip(weights, directions, strict=True):
                weight.add_(direction, alpha=step)
            values.append(loss())
    _same(torch.as_tensor(given), (values[0] - values[1]) / (2.0 * STEP), 1e-5, "gradient in the weights")


def _file(model: EnergyModel, atoms: Atoms) -> None:
    single = copy.deepcopy(model).float()
    with tempfile.TemporaryDirectory() as folder:
        save_model(single, Path(folder) / "model.safetensors")
        loaded = load_model(Path(folder) / "model.safetensors")
    assert isinstance(loaded, EnergyModel)
    _same(
        _evaluated(loaded.double(), atoms).energy,
        _evaluated(single.double(), atoms).energy,
        1e-10,
        "energy of the file",
    )
