"""What does detail-preserving pooling cost beside average pooling?

Forward, and forward with backward, of every kind of pooling on one map, compiled where a compiler exists and eager,
taken in turn; CPU seconds over those of the average pool in the same mode. Wanted: fused, at most 2.5 times.

    python benchmarks/pooling.py [--repeats 15] [--threads 1]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from common import figure, interleaved, machine, markdown_machine, markdown_table, write_results
from torch import Tensor, nn

from ase_andersonn.backends import compile_function
from ase_andersonn.nn.pooling import KINDS, pooling

WANTED = 2.5
MAPS: dict[str, tuple[tuple[int, ...], int]] = {
    "image of atoms": ((2000, 32, 16), 4),
    "feature map": ((16, 64, 32, 32), 2),
}
"""Shape [n, n_channels, *sizes] and window: the classifier's rows, and a network for pictures."""


def functions(layer: nn.Module, x: Tensor, *, compiled: bool) -> dict[str, Callable[[], object]]:
    """One forward pass, and one with its backward pass to map and weights."""
    call = compile_function(layer.forward, device=x.device, mode="auto" if compiled else False, dynamic=False)
    free = x.clone().requires_grad_()
    targets = [free, *layer.parameters()]

    def forward() -> Tensor:
        with torch.no_grad():
            return call(x)

    def both() -> Any:
        return torch.autograd.grad(call(free).sum(), targets)

    return {"forward": forward, "forward and backward": both}


def measure(shape: tuple[int, ...], window: int, repeats: int) -> dict[str, dict[str, dict[str, float]]]:
    """CPU seconds by mode ("eager", "compiled"), pass and kind."""
    x = torch.randn(shape)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for mode in ("eager", "compiled"):
        layers = {kind: pooling(kind, shape[1], window, len(shape) - 2) for kind in KINDS}
        calls = {kind: functions(layer, x, compiled=mode == "compiled") for kind, layer in layers.items()}
        for name in ("forward", "forward and backward"):
            times = interleaved({kind: calls[kind][name] for kind in KINDS}, repeats, warm=3)
            found.setdefault(mode, {})[name] = {kind: entry.cpu_median for kind, entry in times.items()}
    return found


def report(data: dict[str, Any]) -> str:
    lines = ["# Cost of detail-preserving pooling", "", markdown_machine(data["machine"]), ""]
    lines += [f"CPU seconds over those of the average pool in the same mode; wanted: compiled, at most {WANTED}.", ""]
    for name, entry in data["maps"].items():
        header = [f"{name} {entry['shape']}, window {entry['window']}"]
        passes = [(mode, which) for mode in ("eager", "compiled") for which in ("forward", "forward and backward")]
        header += [f"{mode}, {which}" for mode, which in passes]
        rows = []
        for kind in KINDS:
            ratios = [entry["seconds"][m][w][kind] / entry["seconds"][m][w]["average"] for m, w in passes]
            rows.append([kind, *map(figure, ratios)])
        base = [f"{1e3 * entry['seconds'][m][w]['average']:.2f} ms" for m, w in passes]
        lines += [markdown_table(header, [*rows, ["average pool itself", *base]]), ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
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
