"""Tiled evaluators of small models, and structures for them."""

from typing import Any

import numpy as np
import torch
from ase import Atoms
from small_models import rattled, silicon, skewed, slab, small_model, wire

from ase_andersonn.engine.evaluator import DirectEvaluator
from ase_andersonn.potentials.base import EnergyModel
from ase_andersonn.potentials.interface import Evaluator, Settings
from ase_andersonn.tiles import TiledEvaluator

MODEL = small_model()
CUTOFF = MODEL.cutoff
TIGHT = Settings(torch.device("cpu"), torch.float64, tol=1e-24, warm_start=False, compile=False)


def tiled(focus: float = 4.0, context: float = 6.0, model: EnergyModel = MODEL, **kwargs: Any) -> TiledEvaluator:
    return TiledEvaluator(model, TIGHT, focus=focus, context=context, **kwargs)


def untiled(model: EnergyModel = MODEL) -> DirectEvaluator:
    return DirectEvaluator(model, TIGHT)


def results(evaluator: Evaluator, atoms: Atoms, forces: bool = True) -> dict[str, Any]:
    stress = forces and bool(atoms.pbc.all())
    return evaluator.calculate(atoms, forces=forces, stress=stress, changes=())


def energy(evaluator: Evaluator, atoms: Atoms) -> float:
    return float(results(evaluator, atoms, forces=False)["energy"])


def chain_of_molecules() -> Atoms:
    """Without any periodic direction, longer than a tile."""
    positions = np.random.default_rng(3).normal(size=(14, 3)) * [0.4, 0.4, 0.1] + np.linspace(0, 14, 14)[:, None] * [
        1.0,
        0.6,
        0.2,
    ]
    return rattled(Atoms("CSiCHOSiCSiCHCSiCO", positions=positions * 1.3), 0.02)


def sheet() -> Atoms:
    """A slab wide enough for several tiles each way."""
    return rattled(slab() * (2, 3, 1), 0.05)


CASES = {
    "crystal": lambda: rattled(silicon() * (2, 2, 1), 0.05),
    "skewed": lambda: skewed() * (3, 2, 3),
    "slab": sheet,
    "open": chain_of_molecules,
    "wire": lambda: rattled(wire() * (2, 1, 1), 0.2),
}


def same(given: dict[str, Any], expected: dict[str, Any], tol: float) -> None:
    assert given.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(1.0, float(np.abs(value).max()))
        np.testing.assert_allclose(given[name], value, rtol=0, atol=tol * scale, err_msg=name)
