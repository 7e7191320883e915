"""Speed and memory of a GPU, and agreement of its results with those of the CPU.

    python -m benchmarks.speed.gpu [--model NAME_OR_PATH] [--parts solver evaluate md training agreement]
    python -m benchmarks.speed.gpu --device cpu --small        # the same on the CPU, on small systems

- solver: features and adjoint to a residual of 1e-3 from a cold start, residuals read every 1, 2, 3 iterations; one
  application of the cell and of its transpose.
- evaluate: energy and forces of a graph that is on the device; the graph itself; memory at the peak, per atom.
- md: a step of NVE molecular dynamics through the ASE calculator, neighbour list and all, with warm starts.
- training: a step of the optimiser on forces and energies, batches of structures of 64 atoms.
- agreement: energies, forces and stress beside those of the CPU in float64.

All in float32 and float64, eagerly and compiled, for rattled crystals of 10^3 to 10^6 atoms. Device times are taken
with CUDA events around work that was warmed up, host times after synchronising. What does not fit is reported as such.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import torch

from ase_andersonn.backends import CompileMode, resolve_dtype
from ase_andersonn.potentials.base import EnergyModel
from benchmarks._cells import model_in, name_of
from benchmarks._common import machine, write_results
from benchmarks.speed.gpu_measurements import (
    Device,
    Row,
    measure_agreement,
    measure_evaluate,
    measure_md,
    measure_solver,
    measure_training,
)
from benchmarks.speed.gpu_report import report

SIZES = (1_000, 10_000, 100_000, 1_000_000)
SMALL = (64, 216)
MOST_MD = 200_000
"""Atoms; beyond, the host's neighbour list takes seconds a step."""
MOST_TRAINING = 20_000
MOST_COMPARED = 10_000
MODES: dict[str, CompileMode] = {"eager": False, "compiled": "auto"}
Part = Callable[[Device, EnergyModel, int, CompileMode], Row]
PARTS: dict[str, tuple[Part, int]] = {
    "solver": (measure_solver, 10**9),
    "evaluate": (measure_evaluate, 10**9),
    "md": (measure_md, MOST_MD),
    "training": (measure_training, MOST_TRAINING),
    "agreement": (measure_agreement, MOST_COMPARED),
}


def measure_all(device: Device, options: argparse.Namespace) -> Iterator[Row]:
    """One row for each part, precision, mode and size; `failed` says why one has no figures."""
    for dtype in options.dtypes:
        model = model_in(options.model, resolve_dtype(dtype), device.device)
        for part in options.parts:
            function, most = PARTS[part]
            for mode in options.modes:
                for n_atoms in (size for size in options.sizes if size <= most):
                    row: Row = {"part": part, "dtype": dtype, "mode": mode, "n_atoms": n_atoms}
                    try:
                        row |= function(device, model, n_atoms, MODES[mode])
                    except torch.OutOfMemoryError:
                        row["failed"] = "out of memory"
                    device.free()
                    yield row
                    if "failed" in row:
                        break


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="name or path; the packaged default where not given")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="small systems, as for a test on the CPU")
    parser.add_argument("--sizes", type=int, nargs="+", help="atoms, at least")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "float64"], default=["float32", "float64"])
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES))
    parser.add_argument("--name", default="gpu", help="of the result files")
    options = parser.parse_args()
    options.sizes = options.sizes or (SMALL if options.small else SIZES)
    device = Device(options.device)
    if not device.cuda:
        torch.set_num_threads(1)
    facts = machine() | device.facts()
    text = name_of(model_in(options.model, torch.float32))
    rows: list[Row] = []
    for row in measure_all(device, options):
        print(row, flush=True)
        rows.append(row)
        write_results(options.name, {"machine": facts, "model": text, "rows": rows}, report(rows, facts, text))
    print(report(rows, facts, text))


if __name__ == "__main__":
    main()
