"""Per-element parameters as a function of element properties plus a residual."""

import pytest
import torch
from ase.data import covalent_radii
from torch import nn

from ase_andersonn.nn.blocks import SpeciesLinear
from ase_andersonn.training.element_rows import ElementRows, properties_of, shared_distances

ELEMENTS = (3, 11, 19, 29)  # Li, Na, K, Cu


class Rows(nn.Module):
    """A module with rows of elements, and a matrix of the same height that has none."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = SpeciesLinear(3, 5, len(ELEMENTS))
        self.angular = nn.Parameter(torch.randn(len(ELEMENTS), 5))


def test_elements_of_a_group_resemble_each_other() -> None:
    rows = properties_of(ELEMENTS)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(ELEMENTS)))
    lithium, sodium, _, copper = rows
    assert lithium @ sodium > 0.5 > lithium @ copper


def test_rows_alone_are_split_and_kept() -> None:
    model = Rows()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    rows = ElementRows(model, ELEMENTS, None)
    assert set(rows.split) == {"linear.gain", "linear.bias"}
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name])
    names = [name for name, _ in rows.named_parameters()]
    assert "linear.bias/shared" in names
    assert "angular" in names


def test_rows_drawn_anew_depend_on_the_seed_alone_and_keep_their_variance() -> None:
    torch.manual_seed(0)
    first, second, other = (Rows() for _ in range(3))
    second.load_state_dict(first.state_dict())
    other.load_state_dict(first.state_dict())
    ElementRows(first, ELEMENTS, 1), ElementRows(second, ELEMENTS, 1), ElementRows(other, ELEMENTS, 2)
    assert torch.equal(first.linear.bias, second.linear.bias)
    assert not torch.equal(first.linear.bias, other.linear.bias)
    wide = nn.ParameterDict({"bias": torch.randn(len(ELEMENTS), 4000)})
    std = wide["bias"].std().item()
    ElementRows(wide, ELEMENTS, 0)
    assert 0.95 < wide["bias"].std().item() / std < 1.05  # its own standard error is 0.01


def test_the_gradients_are_those_of_the_sum() -> None:
    model = Rows()
    rows = ElementRows(model, ELEMENTS, 0)
    x, species, weight = torch.randn(6, 3), torch.tensor([0, 1, 2, 3, 0, 1]), torch.randn(6, 5)
    (model.linear(x, species) * weight).sum().backward()  # type: ignore[no-untyped-call]
    rows.pass_gradients()
    shared, own = (p.detach().clone().requires_grad_() for p in rows.split["linear.bias"])
    bias = rows.properties @ shared + own
    (bias[species] * weight).sum().backward()  # type: ignore[no-untyped-call]
    for p, q in zip(rows.split["linear.bias"], (shared, own), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_what_is_learnt_of_one_element_moves_those_that_resemble_it() -> None:
    model = Rows()
    rows = ElementRows(model, ELEMENTS, 0)
    before = model.linear.bias.detach().clone()
    model.linear.bias.grad = torch.zeros_like(before)
    model.linear.bias.grad[0] = 1.0  # lithium
    rows.pass_gradients()
    with torch.no_grad():
        for p in rows.split["linear.bias"]:
            p -= 0.1 * p.grad  # type: ignore[operator]
    rows.write()
    moved = (before - model.linear.bias).mean(1)
    lithium, sodium, potassium, copper = moved.tolist()
    assert lithium > sodium > potassium > copper > -0.01


def test_pairs_never_seen_bonded_take_the_share_of_the_others() -> None:
    radii = {z: covalent_radii[z] for z in (3, 11, 29)}
    known = {(3, 3): 1.4 * radii[3], (11, 11): 1.6 * radii[11], (3, 11): 4.5}
    found = shared_distances((3, 11, 29), known)
    assert found[3, 3] == known[3, 3]
    assert found[11, 11] == pytest.approx(1.55 * radii[11])  # the upper quartile of 0.7 and 0.8
    assert found[3, 11] == pytest.approx(0.75 * (radii[3] + radii[11]))  # seen far apart alone
    assert found[29, 29] == pytest.approx(1.5 * radii[29])  # never seen
    assert len(found) == 6
