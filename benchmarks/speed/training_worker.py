"""One network in training, in its own environment: the time and the memory of its steps.

`training_step.py` starts it with the arguments NETWORK FRAMES BATCH. MACE's side imports nothing of `ase_andersonn`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

from benchmarks._worker import forget_peak, peak_mib, resident_mib, serve

CUTOFF = 5.0
SIZES: dict[str, Any] = {"n_edge": 32, "n_pairs": 2, "l_max": 4, "n_token": 32, "n_channels": 32, "n_hidden": 192}
OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "attention": ("DEQAttention", SIZES),
    "attention-wide": ("DEQAttention", SIZES | {"n_bispectrum": 32, "n_message": 64}),
    "cartesian": ("DEQCartesian", SIZES | {"rank": 2, "n_tensors": 8, "n_products": 8}),
}
COMPILED = {f"{name}-compiled": name for name in OURS}
MACE = {"mace-128x0e": "128x0e", "mace-128x0e+128x1o": "128x0e + 128x1o"}
Step = Callable[[], None]


def ours(name: str, frames: str, batch: int) -> tuple[Step, int]:
    """A step of this project's trainer, and the number of weights."""
    from ase.io import read

    from ase_andersonn.training import TrainConfig
    from ase_andersonn.training.potential_trainer import Trainer

    architecture, sizes = OURS[COMPILED.get(name, name)]
    n_atoms = len(read(frames, 0))
    config = TrainConfig(
        train=(frames,),
        output=tempfile.mkdtemp(),
        validation_fraction=0.0,
        architecture=architecture,
        model=sizes,
        batch_atoms=batch * n_atoms,
        stress_weight=0.0,
        compile=name in COMPILED,
    )
    trainer = Trainer(config, progress_bar=False)
    batches = cycle([b for b in trainer.sampler.epoch(0) if len(b) == batch])
    return lambda: trainer.step(next(batches)), sum(p.numel() for p in trainer.model.parameters())


def mace(irreps: str, frames: str, batch: int) -> tuple[Step, int]:
    """A step of MACE with the blocks of `mace_run_train`: energy and forces loss, AMSGrad, float32, no averages."""
    from mace import data, modules, tools  # isort: skip
    from mace.tools import torch_geometric  # isort: skip

    import numpy as np
    import torch
    from ase.io import read
    from e3nn import o3

    torch.set_default_dtype(torch.float32)
    atoms = read(frames, ":")
    numbers = sorted({int(z) for a in atoms for z in a.numbers})
    table = tools.AtomicNumberTable(numbers)
    keys = data.KeySpecification(info_keys={"energy": "REF_energy"}, arrays_keys={"forces": "REF_forces"})
    for a in atoms:
        a.info["REF_energy"], a.arrays["REF_forces"] = a.get_potential_energy(), a.get_forces()
    configs = [data.config_from_atoms(a, key_specification=keys) for a in atoms]
    graphs = [data.AtomicData.from_config(c, z_table=table, cutoff=CUTOFF) for c in configs]
    loader = torch_geometric.dataloader.DataLoader(graphs, batch_size=batch, shuffle=True, drop_last=True)
    model = modules.ScaleShiftMACE(
        r_max=CUTOFF,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
        num_interactions=2,
        num_elements=len(numbers),
        hidden_irreps=o3.Irreps(irreps),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(len(numbers)),
        avg_num_neighbors=12.0,
        atomic_numbers=numbers,
        correlation=3,
        gate=torch.nn.functional.silu,
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )
    loss = modules.WeightedEnergyForcesLoss(energy_weight=1.0, forces_weight=100.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, amsgrad=True)

    def batches() -> Iterator[Any]:
        while True:
            yield from loader

    stream = batches()

    def step() -> None:
        graph = next(stream)
        optimizer.zero_grad(set_to_none=True)
        found = model(graph.to_dict(), training=True, compute_force=True)
        loss(graph, found).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()

    return step, sum(p.numel() for p in model.parameters())


def main() -> None:
    name, frames, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
    step, weights = mace(MACE[name], frames, batch) if name in MACE else ours(name, frames, batch)
    for _ in range(3):
        step()
    facts = {"weights": weights, "resident_mib": resident_mib()}

    def steps(n: int) -> dict[str, Any]:
        forget_peak()
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(n):
            step()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        return {"cpu_s": cpu / n, "wall_s": wall / n, "peak_mib": peak_mib()}

    serve({"facts": lambda: facts, "steps": steps})


if __name__ == "__main__":
    main()
