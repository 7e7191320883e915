"""Checks of the arguments of a simulation."""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from .moves.base import Move


def check_temperature(temperature_K: float) -> float:
    """Return a valid temperature, K.

    Raises:
        ValueError: unless it is positive and finite.
    """
    if not (math.isfinite(temperature_K) and temperature_K > 0.0):
        raise ValueError(
            f"temperature_K is {temperature_K}; it has to be positive and finite, in kelvin. (For the lowest energy "
            "use one of ase.optimize.)"
        )
    return float(temperature_K)


def check_weights(weights: Sequence[float] | None, moves: Sequence[Any]) -> tuple[list[float], list[float]]:
    """Weights of the moves, and their cumulative sums."""
    if not moves or not all(isinstance(move, Move) for move in moves):
        raise ValueError(
            f"moves is {moves!r}; one or several moves are expected, as in [Displacement(0.1), SpeciesSwap()]."
        )
    found = [1.0] * len(moves) if weights is None else [float(weight) for weight in weights]
    if len(found) != len(moves) or not all(math.isfinite(w) and w >= 0.0 for w in found) or sum(found) <= 0.0:
        raise ValueError(
            f"weights is {weights!r} for {len(moves)} move(s); one number for each is expected, none negative, not all "
            "zero."
        )
    return found, list(accumulate(found))


def check_seed(seed: Any) -> int | None:
    if seed is None or (isinstance(seed, int | np.integer) and not isinstance(seed, bool) and seed >= 0):
        return seed if seed is None else int(seed)
    raise ValueError(f"seed is {seed!r}; an integer of 0 or more is expected, or None.")


def check_numbers(
    moves_per_step: int,
    equilibration: int,
    check_interval: int | None,
    check_tolerance: float,
    restart_interval: int | None,
) -> None:
    """Raise ValueError for invalid numbers of steps or tolerance."""
    least = {
        "moves_per_step": (moves_per_step, 1),
        "equilibration": (equilibration, 0),
        "check_interval": (1000 if check_interval is None else check_interval, 0),
        "restart_interval": (1000 if restart_interval is None else restart_interval, 1),
    }
    for name, (value, low) in least.items():
        if not isinstance(value, int | np.integer) or value < low:
            raise ValueError(f"{name} is {value!r}; it has to be an integer of {low} or more.")
    if not check_tolerance > 0.0:
        raise ValueError(f"check_tolerance is {check_tolerance}; it has to be positive, in eV/atom.")
