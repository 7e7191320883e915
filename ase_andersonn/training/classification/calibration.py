"""Probabilities that mean something, and a measure of how unusual a structure is."""

import torch
from torch import Tensor

from ase_andersonn.classifiers.base import ClassifierModel

SHRINKAGE = 0.01
"""Share of the mean variance added to every direction of the covariance."""
QUANTILE = 0.99


def fit_temperature(logits: Tensor, targets: Tensor) -> float:
    """The `T` that minimises `−Σ_y t_y ln softmax(logits / T)[y]`, within 0.05 and 20.

    Of n structures and K labels, the right label has the target `1 − (K − 1) / (n + K)`, every other one `1 / (n + K)`:
    where all answers are right, that n were so is no ground for certainty.

    The loss is convex in `1/T`, so a golden section finds it. Guo et al., arXiv 1706.04599; the targets are Platt's
    (Advances in Large Margin Classifiers, 61, 1999).
    """
    n, k = logits.shape

    def loss(log_t: float) -> float:
        scaled = logits.double() / 2.718281828459045**log_t
        return float(torch.nn.functional.cross_entropy(scaled, targets, label_smoothing=k / (n + k)))

    low, high = -3.0, 3.0
    ratio = (5.0**0.5 - 1.0) / 2.0
    a, b = high - ratio * (high - low), low + ratio * (high - low)
    at_a, at_b = loss(a), loss(b)
    for _ in range(40):
        if at_a < at_b:
            high, b, at_b = b, a, at_a
            a = high - ratio * (high - low)
            at_a = loss(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + ratio * (high - low)
            at_b = loss(b)
    return float(2.718281828459045 ** (0.5 * (low + high)))


@torch.no_grad()
def fit_novelty(model: ClassifierModel, train: Tensor, validation: Tensor) -> None:
    """Set the model's mean, whitening and scale of the features.

    Args:
        model: whose buffers are set.
        train: features of the training structures [n, n_features].
        validation: of held-out structures [m, n_features]; the training ones where there are none.
    """
    x = train.double()
    centred = x - x.mean(0)
    covariance = centred.T @ centred / len(x)
    covariance.diagonal().add_(SHRINKAGE * covariance.diagonal().mean() + 1e-12)
    factor = torch.linalg.cholesky(covariance)
    model.feature_mean.copy_(x.mean(0))
    model.feature_whitening.copy_(torch.linalg.inv(factor).T)
    model.novelty_scale.fill_(1.0)
    distances = model.out_of_distribution((validation if len(validation) else train).to(model.feature_mean))
    model.novelty_scale.fill_(float(distances.double().quantile(QUANTILE)) + 1e-12)
