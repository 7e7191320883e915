"""Per-element parameters learnt as a function of the elements' properties plus a residual.

A parameter `P` with one row for each element is written as

    P = D W + R,    ∂L/∂W = Dᵀ ∂L/∂P,    ∂L/∂R = ∂L/∂P,

with `D` the elements' properties. The optimiser moves `W` and `R`: what is learnt of an element moves those that
resemble it too, so that elements with few training frames do not stay where they were drawn. The model holds `P` alone,
so files and inference know nothing of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations_with_replacement

import numpy as np
import torch
from ase.data import covalent_radii
from torch import Tensor, nn

from ase_andersonn.structures.elements import element_properties, group, period

ROWS = ("center", "other", "factor", "gain", "bias", "output", "linear_output")
"""Names of the parameters that have one row for each element."""
DRAWN_SHARE = 0.8
"""Share of the variance of freshly drawn rows that the properties explain."""


def properties_of(elements: Sequence[int]) -> Tensor:
    """Rows of unit length: properties of the elements, with group and period as indicators too [n_elements, n]."""
    numbers = torch.tensor(elements)
    table = torch.from_numpy(element_properties()).float()[numbers]
    groups = nn.functional.one_hot(torch.tensor([group(z) - 1 for z in elements]), 18)
    periods = nn.functional.one_hot(torch.tensor([period(z) - 1 for z in elements]), 7)
    columns = torch.cat([0.7 * table, groups, periods], 1)
    rows: Tensor = columns / torch.linalg.vector_norm(columns, dim=1, keepdim=True)
    return rows


def shared_distances(elements: Sequence[int], known: Mapping[tuple[int, int], float]) -> dict[tuple[int, int], float]:
    """The distance down to which each pair of elements counts as known, Å; unbonded pairs take it from the others.

    A pair that the frames hold at no less than the sum of its covalent radii, or not at all, takes the median share of
    that sum of the other pairs; one that they hold seldom, and so never near, at most the upper quartile: a repulsion
    from its own shortest distance on would reach into ordinary bonds.

    Args:
        elements: atomic numbers.
        known: from the training frames, by atomic numbers in ascending order, Å.
    """
    sums = {(i, j): float(covalent_radii[i] + covalent_radii[j]) for i, j in combinations_with_replacement(elements, 2)}
    bonded = {pair: known[pair] for pair in sums if known.get(pair, np.inf) < sums[pair]}
    shares = [r / sums[pair] for pair, r in bonded.items()] or [1.0]
    median, upper = (float(share) for share in np.quantile(shares, (0.5, 0.75)))
    return {pair: min(bonded.get(pair, median * total), upper * total) for pair, total in sums.items()}


class ElementRows:
    """The parameters of a model in the form that is optimised.

    Args:
        model: the model; its parameters named in `ROWS` are split.
        elements: atomic numbers of the rows.
        seed: of the rows drawn anew; None leaves the model's rows as they are.
    """

    def __init__(self, model: nn.Module, elements: Sequence[int], seed: int | None) -> None:
        self.properties = properties_of(elements)
        self.model = model
        self.split: dict[str, tuple[nn.Parameter, nn.Parameter]] = {}
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        for name, p in self._rows():
            self.split[name] = self._parts(p.detach(), generator)
        self.write()

    def _rows(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, p in self.model.named_parameters():
            if name.rsplit(".", 1)[-1] in ROWS and p.ndim == 2 and len(p) == len(self.properties):
                yield name, p

    def _parts(self, rows: Tensor, generator: torch.Generator | None) -> tuple[nn.Parameter, nn.Parameter]:
        """`W` and `R` of given rows; with a generator `W` is drawn, so that the rows keep their variance."""
        d = self.properties.to(rows)
        if generator is None:
            return nn.Parameter(torch.zeros_like(d.T @ rows)), nn.Parameter(rows.clone())
        drawn = torch.randn(d.shape[1], rows.shape[1], generator=generator).to(rows)
        return nn.Parameter(DRAWN_SHARE**0.5 * rows.std() * drawn), nn.Parameter((1.0 - DRAWN_SHARE) ** 0.5 * rows)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What the optimiser moves, under the model's names, those that are split with `/shared` and `/own` added."""
        for name, p in self.model.named_parameters():
            if name in self.split:
                shared, own = self.split[name]
                yield f"{name}/shared", shared
                yield f"{name}/own", own
            else:
                yield name, p

    def pass_gradients(self) -> None:
        """Give `W` and `R` their gradients, from those of the model's parameters."""
        for name, p in self._rows():
            shared, own = self.split[name]
            shared.grad = None if p.grad is None else self.properties.to(p).T @ p.grad
            own.grad = p.grad

    @torch.no_grad()
    def write(self) -> None:
        """Put `D W + R` into the model."""
        for name, p in self._rows():
            shared, own = self.split[name]
            p.copy_(self.properties.to(p) @ shared + own)
