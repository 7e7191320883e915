"""Losses against their formulas."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor

from ase_andersonn.training.data.targets import Systems, Targets
from ase_andersonn.training.losses import LossWeights, huber, loss_terms

DELTA = 0.1
SCALES = torch.ones(119, dtype=torch.float64)
SCALES[3], SCALES[42] = 0.05, 2.0
SYSTEMS = Systems(
    numbers=torch.tensor([3, 42, 3, 3, 42]),
    system=torch.tensor([0, 0, 1, 1, 1]),
    n_per_system=torch.tensor([2, 3]),
    volume=torch.tensor([30.0, math.nan], dtype=torch.float64),
)


def targets(seed: int) -> Targets:
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    stress = normal(2, 3, 3)
    stress[1] = math.nan
    return Targets(normal(2), normal(5, 3), stress)


def h(x: float) -> float:
    return x * x / (2 * DELTA) if x <= DELTA else x - DELTA / 2


@given(st.floats(0.0, 3.0))
def test_huber(x: float) -> None:
    assert huber(torch.tensor(x * x, dtype=torch.float64), DELTA).item() == pytest.approx(h(x), abs=1e-12)


def test_the_slope_of_huber_is_finite_at_zero_and_continuous() -> None:
    for size, slope in ((0.0, 0.0), (0.05, 0.5), (DELTA * (1 - 1e-9), 1.0), (DELTA * (1 + 1e-9), 1.0), (5.0, 1.0)):
        x = torch.tensor([size, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
        huber(x.square().sum(), DELTA).backward()
        assert x.grad is not None
        assert x.grad[0].item() == pytest.approx(slope, abs=1e-6)


def test_terms() -> None:
    a, b = targets(0), targets(1)
    terms = loss_terms(a, b, SYSTEMS, SCALES, DELTA)
    scale = [SCALES[z].item() for z in SYSTEMS.numbers.tolist()]
    mean = [(scale[0] + scale[1]) / 2, (scale[2] + scale[3] + scale[4]) / 3]
    difference = (a.energy - b.energy).abs().tolist()
    energy = np.mean([h(difference[0] / 2 / mean[0]), h(difference[1] / 3 / mean[1])])
    forces = np.mean([h(float((a.forces - b.forces)[i].norm()) / scale[i]) for i in range(5)])
    stress = h(30.0 * float((a.stress - b.stress)[0].norm()) / 2 / mean[0])
    assert terms.energy.item() == pytest.approx(energy)
    assert terms.forces.item() == pytest.approx(forces)
    assert terms.stress.item() == pytest.approx(stress)
    assert terms.total(LossWeights(2.0, 3.0, 5.0)).item() == pytest.approx(2 * energy + 3 * forces + 5 * stress)


def test_what_has_no_label_takes_no_part() -> None:
    a, b = targets(0), targets(1)
    b.energy[0] = math.nan
    b.forces[2:] = math.nan
    b.stress[:] = math.nan
    for value in (a.energy, a.forces, a.stress):
        value.requires_grad_()
    terms = loss_terms(a, b, SYSTEMS, SCALES, DELTA)
    assert terms.stress.item() == 0.0
    terms.total(LossWeights(1.0, 1.0, 1.0)).backward()
    assert a.energy.grad is not None
    assert a.forces.grad is not None
    assert a.energy.grad[0] == 0
    assert a.energy.grad[1] != 0
    assert (a.forces.grad[:2] != 0).all()
    assert (a.forces.grad[2:] == 0).all()
    assert a.stress.grad is None or (a.stress.grad == 0).all()


def test_a_soft_and_a_stiff_element_count_alike() -> None:
    a, b = targets(0), targets(1)
    b = replace(b, forces=a.forces + SCALES[SYSTEMS.numbers][:, None] * 0.3)
    a.forces.requires_grad_()
    loss_terms(a, b, SYSTEMS, SCALES, DELTA).forces.backward()
    assert a.forces.grad is not None
    weighted = a.forces.grad * SCALES[SYSTEMS.numbers][:, None]
    torch.testing.assert_close(weighted, weighted[:1].expand(5, 3))


def test_the_axes_do_not_matter() -> None:
    a, b = targets(0), targets(1)
    r = torch.tensor(Rotation.random(random_state=0).as_matrix())

    def rotated(t: Targets) -> Targets:
        return Targets(t.energy, t.forces @ r.T, r @ t.stress @ r.T)

    before = loss_terms(a, b, SYSTEMS, SCALES, DELTA)
    after = loss_terms(rotated(a), rotated(b), SYSTEMS, SCALES, DELTA)
    for name in ("energy", "forces", "stress"):
        torch.testing.assert_close(getattr(after, name), getattr(before, name))
