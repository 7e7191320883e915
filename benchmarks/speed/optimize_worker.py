"""One process of `optimize.py`: calls of one way to run a model on one structure, with what they take.

python -m benchmarks.speed.optimize_worker MODEL MODE BLOCK N_CELLS REPEATS
python -m benchmarks.speed.optimize_worker MODEL choose
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import warnings
from typing import Any

from benchmarks._worker import forget_peak, peak_mib, resident_mib

MODES: dict[str, Any] = {"eager": False, "native": "native"}


def silicon(n_cells: int, seed: int) -> Any:
    """Diamond-cubic Si (a = 5.43 Å), rattled by 0.05 Å a component."""
    from ase.build import bulk

    atoms = bulk("Si", "diamond", a=5.43, cubic=True) * n_cells
    atoms.rattle(0.05, seed=seed)
    return atoms


def with_block(calc: Any, mode: str, block: int) -> Any:
    """The calculator, whose encoder takes `block` atoms at once; 0 for the default, -1 for all."""
    from ase_andersonn.engine.compiled import compiled_model

    if block:
        encoder = compiled_model(calc.model, calc.evaluator.settings.device, MODES[mode]).encoder
        encoder.block = block if block > 0 else 2**24
    return calc


def calls(model: str, mode: str, block: int, n_cells: int, repeats: int) -> dict[str, Any]:
    """Energy and forces of structures rattled anew: median CPU and wall time, and the memory that they add at most."""
    import torch

    from ase_andersonn import AndersoNN

    calc = with_block(AndersoNN(model, device="cpu", warm_start=False, compile=MODES[mode]), mode, block)
    calc.get_forces(silicon(1, seed=0))
    before = resident_mib()
    forget_peak()
    cpu, wall = [], []
    for seed in range(repeats):
        atoms = silicon(n_cells, seed + 1)
        begun = time.process_time(), time.perf_counter()
        calc.get_forces(atoms)
        cpu.append(time.process_time() - begun[0])
        wall.append(time.perf_counter() - begun[1])
    return {
        "n_atoms": len(atoms),
        "threads": torch.get_num_threads(),
        "cpu_s": statistics.median(cpu),
        "wall_s": statistics.median(wall),
        "peak_mib": peak_mib() - before,
        "backend": calc.diagnostics["backend"],
    }


def choose(model: str) -> dict[str, Any]:
    """What `andersonn optimize` chooses, and how long it takes."""
    import dataclasses

    import torch

    from ase_andersonn import load_model
    from ase_andersonn.engine.optimize.choose import optimize

    potential: Any = load_model(model)
    begun = time.process_time(), time.perf_counter()
    choice, why = optimize(potential, torch.device("cpu"))
    took = {"cpu_s": time.process_time() - begun[0], "wall_s": time.perf_counter() - begun[1]}
    return {"chosen": dataclasses.asdict(choice.chosen), **dataclasses.asdict(choice), **took, "not_kept": why}


def main() -> None:
    warnings.simplefilter("ignore")
    model, mode, *numbers = sys.argv[1:]
    print(json.dumps(choose(model) if mode == "choose" else calls(model, mode, *map(int, numbers))))


if __name__ == "__main__":
    main()
