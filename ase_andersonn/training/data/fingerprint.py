"""Fingerprint of a data set, by which a resumed run finds changed structures or labels."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike


def fingerprint(structures: Iterable[Iterable[ArrayLike]]) -> str:
    """SHA-256 of structures and their labels, in their order.

    Args:
        structures: of each one its atomic numbers, positions, cell, periodicity and labels, as arrays; their shapes and
            types count as well.
    """
    digest = hashlib.sha256()
    for arrays in structures:
        for array in map(np.asarray, arrays):
            digest.update(f"{array.dtype.str} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()
