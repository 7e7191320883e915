"""What changes in the course of a run, as functions of its progress from 0 to 1."""

import math

from .config import TrainConfig
from .losses import LossWeights


def learning_rate(progress: float, *, peak: float, final: float, warmup: float) -> float:
    """`peak · p/w` up to `p = w`, then `peak · (r + (1 − r) (1 + cos π(p − w)/(1 − w))/2)`.

    Args:
        progress: p, 0 to 1.
        peak: the largest value.
        final: r, the last value as a fraction of the peak.
        warmup: w, share of the run.
    """
    if progress < warmup:
        return peak * progress / warmup
    if warmup >= 1.0:
        return peak
    phase = min((progress - warmup) / (1.0 - warmup), 1.0)
    return peak * (final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * phase)))


def loss_weights(progress: float, config: TrainConfig) -> LossWeights:
    """The config's weights, with the energy's moved linearly to its final value from `energy_ramp_start` on."""
    energy = config.energy_weight
    if config.energy_weight_final is not None and progress > config.energy_ramp_start:
        share = min((progress - config.energy_ramp_start) / (1.0 - config.energy_ramp_start), 1.0)
        energy += share * (config.energy_weight_final - energy)
    return LossWeights(energy, config.forces_weight, config.stress_weight)
