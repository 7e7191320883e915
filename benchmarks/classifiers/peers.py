"""What does a label cost beside other networks of crystals?

    python -m benchmarks.classifiers.peers --data frames/mp20bt_test.extxyz [--peers matgl=/path/to/env/bin/python]

CPU time of one thread, from a structure in memory to the network's answer, lists of neighbours included, on the same
crystals; every network in a process of its own, in turn, medians of several rounds. What a network is asked for does
not matter here: peers have random weights.

- ours: the packaged classifier, all crystals in one call, and one by one;
- CGCNN-style: three crystal-graph convolutions of torch-geometric, 64 features, the 12 nearest neighbours within 8 Å,
  batches of 64 crystals;
- MEGNet: matgl's, in its default size, one by one as its `predict_structure` takes them; `--peers` names the Python of
  an environment with matgl.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io import read

from benchmarks._common import (
    figure,
    machine,
    markdown_machine,
    markdown_table,
    write_results,
)
from benchmarks._worker import in_own_process

Evaluate = Callable[[Sequence[Any]], object]
WARM = 50
"""Crystals that are looked at before anything is timed."""


def ours(frames: Sequence[Atoms]) -> tuple[Sequence[Any], Evaluate]:
    from ase_andersonn import StructureClassifier

    classifier = StructureClassifier(device="cpu")
    return frames, lambda some: classifier.predict_many(some, progress_bar=False)


def ours_singly(frames: Sequence[Atoms]) -> tuple[Sequence[Any], Evaluate]:
    from ase_andersonn import StructureClassifier

    classifier = StructureClassifier(device="cpu")
    return frames, lambda some: [classifier.predict(atoms) for atoms in some]


def crystal_graph(atoms: Atoms, n_neighbors: int = 12, cutoff: float = 8.0) -> Any:
    """The nearest neighbours of each atom, their distances in 41 Gaussians."""
    import numpy as np
    import torch
    from torch_geometric.data import Data

    from ase_andersonn.structures.neighbors import neighbor_edges

    found = neighbor_edges(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
    r = np.linalg.norm(found.vectors, axis=1)
    order = np.lexsort((r, found.center))
    center = found.center[order]
    first = np.searchsorted(center, np.arange(len(atoms)))
    nearest = order[np.arange(len(order)) - first[center] < n_neighbors]
    edges = torch.from_numpy(np.stack([found.other[nearest], found.center[nearest]])).long()
    distance = torch.from_numpy(r[nearest]).float()[:, None]
    features = (-((distance - torch.linspace(0.0, cutoff, 41)) ** 2) / 0.04).exp()
    return Data(x=torch.from_numpy(atoms.numbers).long(), edge_index=edges, edge_attr=features, num_nodes=len(atoms))


def cgcnn(frames: Sequence[Atoms]) -> tuple[Sequence[Any], Evaluate]:
    import torch
    from torch import nn
    from torch_geometric.data import Batch
    from torch_geometric.nn import CGConv, global_mean_pool

    torch.manual_seed(0)
    embedding = nn.Embedding(119, 64)
    convolutions = nn.ModuleList(CGConv(64, 41, batch_norm=True) for _ in range(3)).eval()
    head = nn.Sequential(nn.Softplus(), nn.Linear(64, 128), nn.Softplus(), nn.Linear(128, 3))

    @torch.inference_mode()
    def evaluate(some: Sequence[Atoms]) -> None:
        for start in range(0, len(some), 64):
            batch = Batch.from_data_list([crystal_graph(atoms) for atoms in some[start : start + 64]])
            x = embedding(batch.x)
            for convolution in convolutions:
                x = convolution(x, batch.edge_index, batch.edge_attr)
            head(global_mean_pool(x, batch.batch))

    return frames, evaluate


def megnet(frames: Sequence[Atoms]) -> tuple[Sequence[Any], Evaluate]:
    import torch
    from matgl.models import MEGNet
    from pymatgen.io.ase import AseAtomsAdaptor

    torch.manual_seed(0)
    model = MEGNet(is_classification=True).eval()
    structures = [AseAtomsAdaptor.get_structure(atoms) for atoms in frames]
    return structures, lambda some: [model.predict_structure(structure) for structure in some]


NETWORKS: dict[str, tuple[str, Callable[[Sequence[Atoms]], tuple[Sequence[Any], Evaluate]]]] = {
    "ours, in one call": ("", ours),
    "ours, one by one": ("", ours_singly),
    "CGCNN-style, batches of 64": ("", cgcnn),
    "MEGNet (matgl), one by one": ("matgl", megnet),
}


def measure(name: str, path: Path, n: int) -> dict[str, float]:
    """In a process of its own: CPU and wall time of one network."""
    import torch

    torch.set_num_threads(1)
    frames = read(path, f":{n}")
    structures, evaluate = NETWORKS[name][1](frames)
    evaluate(structures[:WARM])
    cpu, wall = time.process_time(), time.perf_counter()
    evaluate(structures)
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "atoms": sum(map(len, frames))}


def report(data: dict[str, Any]) -> str:
    lines = ["# Labels of crystals beside other networks", "", markdown_machine(data["machine"]), ""]
    lines += [f"{data['n']:,} crystals of {data['atoms'] / data['n']:.1f} atoms on average.", ""]
    rows = [[name, figure(1e3 * cpu / data["n"]), figure(data["n"] / cpu)] for name, cpu in data["cpu"].items()]
    return "\n".join([*lines, markdown_table(["", "CPU time a structure, ms", "structures a second"], rows), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peers", nargs="*", default=[], help="NAME=PYTHON")
    parser.add_argument("--structures", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, options.data, options.structures)))
        return
    pythons = {"": sys.executable, **dict(peer.split("=", 1) for peer in options.peers)}
    chosen = {name: pythons[peer] for name, (peer, _) in NETWORKS.items() if peer in pythons}
    given = ["--data", options.data, "--structures", options.structures]
    rounds = [
        {name: in_own_process("classifiers.peers", *given, "--only", name, python=p) for name, p in chosen.items()}
        for _ in range(options.repeats)
    ]
    data = {
        "machine": machine(),
        "n": options.structures,
        "atoms": next(iter(rounds[0].values()))["atoms"],
        "cpu": {name: statistics.median(found[name]["cpu"] for found in rounds) for name in chosen},
    }
    write_results("classifier_peers", data, report(data))
    print(report(data))


if __name__ == "__main__":
    main()
