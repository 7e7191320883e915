"""Shapes of a model's tensors are known before a large one is allocated, without importing torch's compiler."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_models import cartesian_model, message_model, small_model
from torch import nn

from ase_andersonn.checkpoints.bounded import LEAST, TooLargeError, _Bounded, shapes_of
from ase_andersonn.potentials.deq_attention import DEQAttention


@pytest.mark.parametrize("make", [small_model, message_model, cartesian_model])
def test_shapes_are_those_of_the_meta_device(make: Callable[[], DEQAttention]) -> None:
    given = make()
    found = shapes_of(lambda: type(given)(given.config), 0)
    with torch.device("meta"):
        expected = type(given)(given.config)
    shapes = [
        {name: (tensor.shape, tensor.dtype) for name, tensor in m.state_dict().items()} for m in (found, expected)
    ]
    assert shapes[0] == shapes[1]
    assert {p.device.type for p in found.parameters()} == {"cpu"}


ABOVE = 2_000
CALLS: dict[str, Callable[[], Any]] = {
    "empty": lambda: torch.empty(ABOVE, ABOVE),
    "a shape": lambda: torch.zeros((ABOVE, ABOVE)),
    "by keyword": lambda: torch.ones(size=(ABOVE, ABOVE)),
    "randn": lambda: torch.randn(ABOVE, ABOVE),
    "full": lambda: torch.full((ABOVE, ABOVE), 1.0),
    "arange": lambda: torch.arange(ABOVE**2),
    "eye": lambda: torch.eye(ABOVE),
    "a layer": lambda: nn.Linear(ABOVE, ABOVE),
    "broadcast": lambda: torch.zeros(ABOVE, 1) + torch.zeros(ABOVE),
    "repeated": lambda: torch.zeros(ABOVE).repeat(ABOVE),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_larger_tensor_is_refused(call: str) -> None:
    with _Bounded(ABOVE**2), torch.no_grad():
        CALLS[call]()
    with _Bounded(ABOVE**2 - 1), pytest.raises(TooLargeError, match=f"{ABOVE**2} numbers"):
        CALLS[call]()


def test_large_models_have_no_memory() -> None:
    """Those with as many numbers as a file holds are made; others have shapes alone."""
    width = int(2 * LEAST**0.5)
    for n_values, device in ((0, "meta"), (width**2, "cpu")):
        assert shapes_of(lambda: nn.Linear(width, width), n_values).weight.device.type == device


def test_random_numbers_stay_as_they_are() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    shapes_of(lambda: nn.Linear(3, 3), 0)
    assert torch.equal(torch.rand(3), expected)


def test_a_calculator_is_made_without_heavy_imports() -> None:
    """Each of them takes as long as all the rest."""
    script = "import sys; from ase_andersonn import AndersoNN; AndersoNN(compile=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"torch._dynamo", "sympy", "scipy", "torch_geometric", "matplotlib"} & set(done.stdout.split())
