"""Energy conservation and cost of molecular dynamics.

NVE runs of 1,000 atoms at about 600 K with a step of 1 fs: 20 ps with the default tolerance and warm starts (features
and adjoint extrapolated from earlier steps), and beside it the same with cold starts; then shorter runs of smaller
cells at tolerances from loose to tight.

    python -m benchmarks.dynamics.nve [--model NAME_OR_PATH] [--elements Si Cu] [--steps 20000] [--cold-steps 5000]
    python -m benchmarks.dynamics.nve --part curve [--curve-steps 2000]
    python -m benchmarks.dynamics.nve --model MODEL --structure FILE --part long --name nve-NAME    # of any structure

A run can be ended at any time (Ctrl-C): it is saved once a minute in `--work`, the same command goes on where it
stopped, and what was measured until then is reported. After going on, the first step starts cold.

The drift is the slope of a straight line through the total energy. The energy of velocity Verlet oscillates with the
square of the time step around what the method really conserves, so the line is also fitted to this shadow energy,

    H + dt^2 (v V'' v / 12 - F F / 24 m),    V'' v = -(F(t + dt) - F(t - dt)) / 2 dt,

from which the oscillation is gone: Engle, Skeel and Drees, J. Comput. Phys. 206, 432 (2005).
"""

from __future__ import annotations

import argparse
import hashlib
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ase_andersonn.checkpoints.checkpoint import load_model
from ase_andersonn.potentials.base import EnergyModel
from benchmarks._cells import name_of, symbols
from benchmarks._common import IMAGES, RESULTS, machine, write_results
from benchmarks.dynamics.nve_report import picture, report, results_of
from benchmarks.dynamics.nve_run import Recorded, Run, calculator, crystal, equilibrated

DEFAULT_TOL = 1e-6
TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-6, 1e-8, 1e-10)
SERIES = ("trace", "shadow_trace")
"""Drawn, and kept in no summary."""


@contextmanager
def asked_to_stop() -> Iterator[list[bool]]:
    """A list that is filled when Ctrl-C or a termination signal comes."""
    asked: list[bool] = []
    before = {s: signal.signal(s, lambda *_: asked.append(True)) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def planned(options: argparse.Namespace) -> list[Run]:
    runs = []
    if options.part in ("long", "all"):
        for symbol in options.elements:
            common = {"part": "long", "symbol": symbol, "n_atoms": options.atoms, "dtype": options.dtype}
            runs += [Run(**common, warm=True, tol=DEFAULT_TOL, n_steps=options.steps)]
            runs += [Run(**common, warm=False, tol=DEFAULT_TOL, n_steps=options.cold_steps)]
    if options.part in ("curve", "all"):
        for symbol in options.elements:
            common = {"part": "curve", "symbol": symbol, "n_atoms": options.curve_atoms, "n_steps": options.curve_steps}
            for tol in TOLERANCES:
                runs += [Run(**common, dtype=options.dtype, warm=warm, tol=tol) for warm in (True, False)]
    return [run for run in runs if run.n_steps > 0]


def fingerprint(model: EnergyModel) -> str:
    """Hash of the weights, so that no run is resumed with another model."""
    content = b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())
    return hashlib.sha256(content).hexdigest()[:12]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="name or path; the packaged default where not given")
    parser.add_argument(
        "--elements", nargs="+", default=["Si", "Cu"], help="those the model does not know are left out"
    )
    parser.add_argument("--structure", help="file whose first structure takes the place of the elements' crystals")
    parser.add_argument("--part", choices=["long", "curve", "all"], default="all")
    parser.add_argument("--atoms", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=20_000, help="of the long run with warm starts")
    parser.add_argument("--cold-steps", type=int, default=5_000, help="of the long run with cold starts")
    parser.add_argument("--curve-atoms", type=int, default=64)
    parser.add_argument("--curve-steps", type=int, default=2_000)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--compile", choices=["auto", "yes", "no"], default="auto")
    parser.add_argument(
        "--work", type=Path, help="folder of the unfinished runs; one for each model in the temporary one"
    )
    parser.add_argument("--name", default="nve", help="of the result files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(options.model).requires_grad_(False)
    options.elements = [symbol for symbol in options.elements if symbol in symbols(model)]
    if options.structure:
        if options.part != "long" or not Path(options.structure).is_file():
            parser.error("--structure needs a file that exists, and --part long")
        options.elements, options.atoms = [options.structure], len(crystal(options.structure, 0))
    work: Path = options.work or Path(tempfile.gettempdir()) / f"ase-andersonn-nve-{fingerprint(model)}"
    work.mkdir(parents=True, exist_ok=True)
    mode = {"auto": "auto", "yes": True, "no": False}[options.compile]
    with asked_to_stop() as stop:
        for run in planned(options):
            if stop:
                break
            atoms = equilibrated(model, run, work, mode)
            recorded = Recorded(run, work / f"run-{run.name}.npz", atoms)
            atoms.calc = calculator(model, run, mode)
            recorded.resume(stop)
            rows, facts = results_of(work), machine()
            data = {"machine": facts, "model": name_of(model), "rows": rows}
            write_results(options.name, data, report(rows, facts, name_of(model), options.name), SERIES)
            if rows:
                picture(rows, (IMAGES if options.name == "nve" else RESULTS) / f"{options.name}.png")
            print(run.name, f"{len(recorded.rows)} of {run.n_steps} steps", flush=True)
    print((RESULTS / f"{options.name}.md").read_text())


if __name__ == "__main__":
    main()
