"""What does detail-preserving pooling cost beside average pooling?

Forward, and forward with backward, of every kind of pooling on one map, eager and compiled where a compiler exists, on
maps with sites or with channels next to each other in memory; taken in turn, in CPU seconds. Wanted: fused, at most
2.5 times the average pool that torch has for the map as it comes, with its sites next to each other.

    python -m benchmarks.classifiers.pooling [--repeats 15] [--threads 1]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ase_andersonn.backends import compile_function
from ase_andersonn.classifiers.layers.detail_preserving_pooling import KINDS, pooling
from benchmarks._common import figure, interleaved, machine, markdown_machine, markdown_table, write_results

WANTED = 2.5
MAPS: dict[str, tuple[tuple[int, ...], int]] = {
    "image of atoms": ((2000, 32, 16), 4),
    "feature map": ((16, 64, 32, 32), 2),
}
"""Shape [n, n_channels, *sizes] and window: the classifier's rows, and a network for pictures."""


PASSES = ("forward", "forward and backward")
LAYOUTS = ("sites last", "channels last")


def functions(layer: nn.Module, x: Tensor, *, compiled: bool) -> dict[str, Callable[[], object]]:
    """One forward pass, and one with its backward pass to map and weights."""
    call = compile_function(layer.forward, device=x.device, mode="auto" if compiled else False, dynamic=False)
    free = x.detach().requires_grad_()
    targets = [free, *layer.parameters()]
    cotangent = torch.ones_like(call(free).detach())

    def forward() -> Tensor:
        with torch.no_grad():
            return call(x)

    def both() -> Any:
        return torch.autograd.grad(call(free), targets, cotangent)

    return dict(zip(PASSES, (forward, both), strict=True))


def measure(shape: tuple[int, ...], window: int, repeats: int) -> dict[str, dict[str, dict[str, float]]]:
    """CPU seconds by way ("eager, sites last", ...), pass and kind."""
    maps = torch.randn(shape), torch.randn(shape[0], *shape[2:], shape[1]).movedim(-1, 1)
    layers = {kind: pooling(kind, shape[1], window, len(shape) - 2) for kind in KINDS}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for mode in ("eager", "compiled"):
        for layout, x in zip(LAYOUTS, maps, strict=True):
            torch._dynamo.reset()
            calls = {kind: functions(layer, x, compiled=mode == "compiled") for kind, layer in layers.items()}
            for name in PASSES:
                times = interleaved({kind: calls[kind][name] for kind in KINDS}, repeats, warm=3)
                seconds = {kind: entry.cpu_median for kind, entry in times.items()}
                found.setdefault(f"{mode}, {layout}", {})[name] = seconds
    return found


def report(data: dict[str, Any]) -> str:
    lines = ["# Cost of detail-preserving pooling", "", markdown_machine(data["machine"]), ""]
    lines += [f"CPU time of all in units of the eager average pool, sites last. Wanted: at most {WANTED}.", ""]
    for name, entry in data["maps"].items():
        for which in PASSES:
            seconds = {way: found[which] for way, found in entry["seconds"].items()}
            unit = seconds["eager, sites last"]["average"]
            rows = [[kind, *(figure(by_kind[kind] / unit) for by_kind in seconds.values())] for kind in KINDS]
            lines += [f"## {name} {entry['shape']}, window {entry['window']}: {which}", ""]
            lines += [markdown_table([f"1 = {1e3 * unit:.2f} ms", *seconds], rows), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch._dynamo.config.recompile_limit = 8 * len(KINDS)  # all kinds share one function
    torch.manual_seed(0)
    maps = {
        name: {"shape": list(shape), "window": window, "seconds": measure(shape, window, options.repeats)}
        for name, (shape, window) in MAPS.items()
    }
    data = {"machine": machine(), "repeats": options.repeats, "threads": options.threads, "maps": maps}
    write_results("pooling", data, report(data))
    print(report(data))


if __name__ == "__main__":
    main()
