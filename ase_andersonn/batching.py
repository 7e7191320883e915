"""Packing of structures into batches of bounded size."""

import math
from collections.abc import Iterable, Sequence


def pack(
    sizes: Sequence[int], capacity: float, order: Iterable[int] | None = None, *, max_items: float = math.inf
) -> list[list[int]]:
    """Indices in batches, in their order, each batch filled until the next item does not fit.

    Args:
        sizes: of each item, such as its number of atoms.
        capacity: sum of the sizes in a batch, at most; a larger item is a batch of its own.
        order: indices to pack, all in ascending order where not given.
        max_items: items in a batch, at most.
    """
    batches: list[list[int]] = []
    free = 0.0
    for index in range(len(sizes)) if order is None else order:
        if not batches or sizes[index] > free or len(batches[-1]) >= max_items:
            batches.append([])
            free = capacity
        batches[-1].append(index)
        free -= sizes[index]
    return batches
