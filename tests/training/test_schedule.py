"""Learning rate, loss weights and averaged weights against their formulas."""

import math

import pytest
import torch
from torch import nn

from ase_andersonn.training import TrainConfig
from ase_andersonn.training.ema import WeightAverage
from ase_andersonn.training.schedule import learning_rate, loss_weights


def test_learning_rate() -> None:
    def rate(p: float) -> float:
        return learning_rate(p, peak=2.0, final=0.1, warmup=0.2)

    assert rate(0.0) == 0.0
    assert rate(0.1) == pytest.approx(1.0)
    assert rate(0.2) == pytest.approx(2.0)
    assert rate(0.6) == pytest.approx(2.0 * (0.1 + 0.9 * 0.5))
    assert rate(1.0) == pytest.approx(0.2)
    assert rate(1.1) == pytest.approx(0.2)
    assert learning_rate(0.0, peak=2.0, final=0.0, warmup=0.0) == 2.0
    assert learning_rate(1.0, peak=2.0, final=0.0, warmup=1.0) == 2.0


def test_the_energy_weight_moves_in_the_last_part() -> None:
    config = TrainConfig(("a",), "b", energy_weight=1.0, energy_weight_final=5.0, energy_ramp_start=0.5)
    weights = [loss_weights(p, config).energy for p in (0.0, 0.5, 0.75, 1.0, 2.0)]
    assert weights == pytest.approx([1.0, 1.0, 3.0, 5.0, 5.0])
    at_the_end = TrainConfig(("a",), "b", energy_weight=1.0, energy_weight_final=5.0, energy_ramp_start=1.0)
    assert loss_weights(1.0, at_the_end).energy == 1.0
    assert loss_weights(0.9, TrainConfig(("a",), "b", energy_weight=7.0)).energy == 7.0


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_the_average_has_no_bias_of_its_start(decay: float) -> None:
    module = nn.Linear(2, 2, dtype=torch.float64)
    average, seen = WeightAverage(module, decay), []
    for step in range(7):
        with torch.no_grad():
            module.weight.fill_(math.sin(step + 1))
        average.update(module)
        seen.append(math.sin(step + 1))
    shares = [max(1 - decay, 10 / (t + 9)) for t in range(1, 8)]
    weights = [shares[k] * math.prod(1 - s for s in shares[k + 1 :]) for k in range(7)]
    assert sum(weights) == pytest.approx(1.0)
    expected = sum(w * x for w, x in zip(weights, seen, strict=True))
    assert average.average["weight"][0, 0].item() == pytest.approx(expected)


def test_own_weights_come_back_bit_for_bit() -> None:
    module = nn.Linear(3, 3)
    average = WeightAverage(module, 0.9)
    average.update(module)
    with torch.no_grad():
        module.weight.mul_(1.1)
    own = module.weight.clone()
    with average.applied(module):
        assert torch.equal(module.weight, average.average["weight"])
        assert not torch.equal(module.weight, own)
    assert torch.equal(module.weight, own)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": ()}, "train is empty"),
        ({"max_epochs": 3, "max_minutes": 3.0}, "give one of the two"),
        ({"energy_weight": 0.0, "forces_weight": 0.0, "stress_weight": 0.0}, "are all 0: nothing would be learnt"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0; it has to lie between"),
        ({"batch_atoms": 0}, "batch_atoms is 0"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
    ],
)
def test_bad_configs(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**{"train": ("a",), "output": "b", **change})  # type: ignore[arg-type]


def test_length_of_a_run() -> None:
    assert TrainConfig(("a",), "b").n_epochs == 100
    assert TrainConfig(("a",), "b", max_epochs=7).n_epochs == 7
    assert TrainConfig(("a",), "b", max_minutes=7.0).n_epochs is None
