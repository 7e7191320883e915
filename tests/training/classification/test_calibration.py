"""Metrics of a classifier, temperature scaling and the out-of-distribution score."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ase_andersonn.training.classification import ClassifierTrainConfig
from ase_andersonn.training.classification.calibration import fit_novelty, fit_temperature
from ase_andersonn.training.classification.metrics import area_under_curve, calibration_error, class_metrics
from ase_andersonn.training.classification.trainer import build_model, class_weights


def test_metrics_by_hand() -> None:
    p = torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.9, 0.1]])
    metrics = class_metrics(p, torch.tensor([0, 1, 1, 0]))
    assert metrics.confusion == [[2, 0], [1, 1]]
    assert metrics.accuracy == 0.75
    assert metrics.balanced_accuracy == 0.75
    assert metrics.macro_f1 == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert metrics.nll == pytest.approx(-np.log([0.8, 0.4, 0.7, 0.9]).mean())
    assert metrics.calibration_error == pytest.approx((0.2 + 0.6 + 0.3 + 0.1) / 4)
    assert metrics.auc == 1.0
    with pytest.raises(ValueError, match="no structures"):
        class_metrics(p[:0], torch.tensor([], dtype=torch.int64))


def test_area_under_curve_is_the_share_of_ordered_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    score = torch.randint(0, 10, (50,), generator=generator).double()
    positive = torch.rand(50, generator=generator) > 0.6
    pairs = score[positive][:, None] - score[~positive]
    expected = ((pairs > 0).double() + 0.5 * (pairs == 0).double()).mean()
    assert area_under_curve(score, positive) == pytest.approx(float(expected))
    assert np.isnan(area_under_curve(score, positive & False))


def test_a_few_right_answers_are_no_certainty() -> None:
    torch.manual_seed(0)
    targets = torch.randint(2, (200,))
    logits = torch.randn(200, 2) + 50.0 * torch.nn.functional.one_hot(targets, 2)
    confidence = (logits / fit_temperature(logits, targets)).softmax(1).amax(1)
    assert confidence.mean() == pytest.approx(1.0 - 1.0 / 202, abs=1e-3)


def test_the_temperature_is_recovered() -> None:
    torch.manual_seed(0)
    logits = 2.0 * torch.randn(20000, 3)
    targets = torch.multinomial(logits.softmax(1), 1)[:, 0]
    for factor in (0.3, 1.0, 4.0):
        temperature = fit_temperature(factor * logits, targets)
        assert temperature == pytest.approx(factor, rel=0.05)
        assert calibration_error((factor * logits / temperature).softmax(1), targets) < 0.015


@pytest.mark.parametrize(("n", "times"), [(2000, 1e6), (2000, 1e-6)])
def test_the_temperature_stays_between_a_twentieth_and_twenty(n: int, times: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(n, 2)
    targets = torch.multinomial((2.0 * logits).softmax(1), 1)[:, 0]
    assert fit_temperature(times * logits, targets) == pytest.approx(np.exp(3.0 if times > 1 else -3.0), rel=1e-6)


def test_the_out_of_distribution_score_is_the_distance_in_standard_deviations(config: ClassifierTrainConfig) -> None:
    """sqrt((x - m) C^-1 (x - m)) with C the covariance and 1 % of its mean variance, over the 99th percentile."""
    model = build_model(config)
    torch.manual_seed(0)
    x = torch.randn(400, 8, dtype=torch.float64) * torch.logspace(-3, 1, 8, dtype=torch.float64) + 3.0
    fit_novelty(model, x[:300].float(), x[300:].float())
    off = x - x[:300].mean(0)
    covariance = off[:300].T @ off[:300] / 300
    covariance += 0.01 * covariance.diagonal().mean() * torch.eye(8, dtype=torch.float64)
    distance = (off * torch.linalg.solve(covariance, off.T).T).sum(1).sqrt()
    expected = distance / distance[300:].quantile(0.99)
    torch.testing.assert_close(model.out_of_distribution(x.float()).double(), expected, rtol=1e-3, atol=1e-4)
    fit_novelty(model, x[:300].float(), x[:0].float())
    expected = distance / distance[:300].quantile(0.99)
    torch.testing.assert_close(model.out_of_distribution(x.float()).double(), expected, rtol=1e-3, atol=1e-4)


def test_one_in_a_hundred_is_unusual(config: ClassifierTrainConfig) -> None:
    model = build_model(config)
    torch.manual_seed(0)
    mix = torch.randn(8, 8)
    x: Tensor = torch.randn(6000, 8) @ mix + 3.0
    fit_novelty(model, x[:5000], x[5000:])
    assert (model.out_of_distribution(x[5000:]) > 1.0).float().mean() == pytest.approx(0.01, abs=0.002)
    assert (model.out_of_distribution(x[5000:] + 20.0) > 1.0).all()


def test_class_weights_have_mean_one() -> None:
    targets = torch.tensor([0] * 8 + [1] * 2)
    assert torch.allclose(class_weights(targets, 2, 0.0), torch.ones(2))
    full = class_weights(targets, 2, 1.0)
    assert full[targets].mean() == pytest.approx(1.0)
    assert full[1] / full[0] == pytest.approx(4.0)
