"""Detail-preserving pooling, and other pooling, of one- and two-dimensional feature maps.

    out = Σ_q w_q I_q / Σ_q w_q,    w_q = α + (x_q / x̄)^(λ/2),    x_q = ρ(I_q − Ĩ_q)² + ε

over the sites `q` of a window, `x̄` the mean of `x` there: sites that differ from the smoothed map `Ĩ` count more.

| variant | |
|---|---|
| symmetric | ρ(d) = d: detail is any difference |
| asymmetric | ρ(d) = max(d, 0): detail is a positive difference |
| lite | Ĩ is the mean over the window |
| full | Ĩ is a learned filter of three sites along each axis, one per channel |
| stochastic | windows have stride 1, and training keeps a random one of every block of `window` along each axis |

`α, λ > 0` are learned per channel. `λ → 0` and `α → ∞` give average pooling.

Saeedan, Weber, Goesele and Roth, CVPR 2018 (arXiv 1804.04076); the random choice is that of Zhai et al. (arXiv
1611.05138).

The sites of a window are a list of maps, so that all operations are elementwise and fused by a compiler. This is
fastest on maps with contiguous channels (`channels_last`), and several times slower on others.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

PoolingKind = Literal[
    "dpp-lite", "dpp-full", "dpp-asymmetric-lite", "dpp-asymmetric-full", "dpp-stochastic", "average", "max", "strided"
]
KINDS: tuple[PoolingKind, ...] = get_args(PoolingKind)
EPSILON = 1e-3
FILTER_SIZE = 3
"""Number of sites of the full variants' filter along an axis."""
CONVOLUTIONS = {1: nn.functional.conv1d, 2: nn.functional.conv2d}
AVERAGES: dict[int, Callable[..., Tensor]] = {1: nn.functional.avg_pool1d, 2: nn.functional.avg_pool2d}
MAXIMA: dict[int, Callable[..., Tensor]] = {1: nn.functional.max_pool1d, 2: nn.functional.max_pool2d}


def pooling(kind: PoolingKind, n_channels: int, window: int, n_axes: int = 1) -> nn.Module:
    """Create a pooling layer, [n, n_channels, *sizes] → [n, n_channels, *sizes / window].

    Args:
        kind: one of `KINDS`; `"strided"` is a convolution with a stride of its own width.
        n_channels: channels.
        window: sites along each axis.
        n_axes: 1 or 2.

    Raises:
        ValueError: for an unknown kind, and as the layers.
    """
    if kind not in KINDS:
        raise ValueError(f"pooling is {kind!r}; allowed are {', '.join(KINDS)}.")
    if kind.startswith("dpp"):
        return DetailPreservingPool(
            n_channels,
            window,
            n_axes,
            symmetric="asymmetric" not in kind,
            full="full" in kind,
            stochastic="stochastic" in kind,
        )
    if kind == "strided":
        return (nn.Conv1d, nn.Conv2d)[n_axes - 1](n_channels, n_channels, window, stride=window)
    return PlainPool(kind, window, n_axes)


class PlainPool(nn.Module):
    """Max or average pooling.

    Args:
        kind: `"max"` or `"average"`.
        window: sites along each axis.
        n_axes: 1 or 2.
    """

    def __init__(self, kind: str, window: int, n_axes: int = 1) -> None:
        super().__init__()
        self.kind, self.window, self.n_axes = kind, window, n_axes

    def forward(self, x: Tensor) -> Tensor:
        """x [n, n_channels, *sizes] → [n, n_channels, *sizes / window]."""
        check_sizes(x, self.window, self.n_axes)
        function = (MAXIMA if self.kind == "max" else AVERAGES)[self.n_axes]
        return function(x, self.window)


class DetailPreservingPool(nn.Module):
    """Detail-preserving pooling, see the module.

    Args:
        n_channels: channels.
        window: sites along each axis.
        n_axes: 1 or 2.
        symmetric, full, stochastic: the variant.

    Attributes:
        log_alpha, log_lambda: parameters [n_channels], initially α = λ = 1.
        filter: filter of the full variants, initially the mean [n_channels, 1, 3, ...].

    Raises:
        ValueError: for an invalid window or number of axes.
    """

    def __init__(
        self,
        n_channels: int,
        window: int,
        n_axes: int = 1,
        *,
        symmetric: bool = True,
        full: bool = False,
        stochastic: bool = False,
    ) -> None:
        super().__init__()
        if window < 1 or n_axes not in AVERAGES:
            raise ValueError(f"window is {window} and n_axes {n_axes}; pooling takes windows from 1 and 1 or 2 axes.")
        self.window, self.n_axes, self.symmetric, self.stochastic = window, n_axes, symmetric, stochastic
        self.log_alpha = nn.Parameter(torch.zeros(n_channels))
        self.log_lambda = nn.Parameter(torch.zeros(n_channels))
        shape = (n_channels, 1, *(FILTER_SIZE,) * n_axes)
        self.filter = nn.Parameter(torch.full(shape, 1.0 / FILTER_SIZE**n_axes)) if full else None

    def forward(self, image: Tensor) -> Tensor:
        """image [n, n_channels, *sizes] → [n, n_channels, *sizes / window].

        Raises:
            ValueError: if the sizes are not multiples of the window.
        """
        check_sizes(image, self.window, self.n_axes)
        if not self.stochastic:
            return self._pool(image, lambda x: block_sites(x, self.window))
        if not self.training:  # the expectation of the random choice
            found = self._pool(image, lambda x: sliding_sites(x, self.window))
            return AVERAGES[self.n_axes](found, self.window)
        sizes = image.shape[-self.n_axes :]
        chosen = [torch.randint(self.window, (size // self.window,), device=image.device) for size in sizes]
        return self._pool(image, lambda x: chosen_sites(x, self.window, chosen))

    def _pool(self, image: Tensor, sites: Callable[[Tensor], list[Tensor]]) -> Tensor:
        smooth = None if self.filter is None else sites(filtered(image, self.filter))
        shape = (-1, *(1,) * self.n_axes)
        alpha, exponent = self.log_alpha.exp().view(shape), 0.5 * self.log_lambda.exp().view(shape)
        return detail_preserving(sites(image), smooth, alpha, exponent, symmetric=self.symmetric)


def check_sizes(x: Tensor, window: int, n_axes: int) -> None:
    """Raise ValueError if windows do not fill the map."""
    if any(size % window for size in x.shape[-n_axes:]):
        raise ValueError(f"the map has {tuple(x.shape[-n_axes:])} sites; windows of {window} have to fill it evenly.")


def detail_preserving(
    sites: Sequence[Tensor], smooth: Sequence[Tensor] | None, alpha: Tensor, exponent: Tensor, *, symmetric: bool
) -> Tensor:
    """`Σ_q w_q I_q / Σ_q w_q`, `w_q = α + (x_q / x̄)^(λ/2)`, `x_q = ρ(I_q − Ĩ_q)² + ε`.

    Args:
        sites: `I_q` of all windows, for each place `q` in a window, tensors of one shape.
        smooth: `Ĩ_q` likewise; None for the mean over the window.
        alpha: α, of a shape that broadcasts with them.
        exponent: λ/2 likewise.
        symmetric: whether ρ(d) is d, not max(d, 0).
    """
    local = [mean(sites)] * len(sites) if smooth is None else smooth
    differences = (one - other for one, other in zip(sites, local, strict=True))
    x = [(d if symmetric else d.clamp(min=0.0)).square() + EPSILON for d in differences]
    scale = mean(x).log()
    weights = [alpha + (exponent * (one.log() - scale)).exp() for one in x]
    return mean([w * one for w, one in zip(weights, sites, strict=True)]) / mean(weights)


def mean(tensors: Sequence[Tensor]) -> Tensor:
    """Mean of tensors of one shape."""
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total * (1.0 / len(tensors))


def block_sites(x: Tensor, window: int) -> list[Tensor]:
    """Sites of adjacent windows, `window ** n_axes` tensors [n, n_channels, *sizes / window]."""
    places = itertools.product(*[[slice(o, None, window) for o in range(window)]] * (x.ndim - 2))
    return [x[:, :, *place] for place in places]


def sliding_sites(x: Tensor, window: int) -> list[Tensor]:
    """Sites of a window around every site, with replicated edges; tensors of the shape of x."""
    padded = _padded(x, window)
    places = itertools.product(*([slice(o, o + size) for o in range(window)] for size in x.shape[2:]))
    return [padded[:, :, *place] for place in places]


def chosen_sites(x: Tensor, window: int, chosen: Sequence[Tensor]) -> list[Tensor]:
    """`sliding_sites` at one chosen site of every block, tensors [n, n_channels, *sizes / window].

    Args:
        x: [n, n_channels, *sizes].
        window: sites along each axis, of windows and blocks.
        chosen: for each axis the place in every block [size / window].
    """
    found = [_padded(x, window)]
    for axis, places in enumerate(chosen, start=2):
        starts = places + window * torch.arange(len(places), device=x.device)
        found = [map_.index_select(axis, starts + o) for map_ in found for o in range(window)]
    return found


def _padded(x: Tensor, window: int) -> Tensor:
    """Map with replicated edges, by concatenation: torch's padding compiles for one layout only."""
    for axis in range(2, x.ndim):
        first, last = x.narrow(axis, 0, 1), x.narrow(axis, -1, 1)
        x = torch.cat([first] * ((window - 1) // 2) + [x] + [last] * (window // 2), axis)
    return x


def filtered(x: Tensor, weight: Tensor) -> Tensor:
    """Depthwise convolution with replicated edges [n, n_channels, *sizes]."""
    padded = _padded(x, FILTER_SIZE)
    return CONVOLUTIONS[x.ndim - 2](padded, weight, groups=x.shape[1])
