"""Metal-organic frameworks built by pormake, labelled with the largest cavity diameter of Zeo++ (pyzeo).

python make.py --number 1000        (resumable: frameworks that are done stay; 10 to 20 s a framework and core)

A framework is one of the nets below with building blocks of pormake on its nodes, one of them with metal at least, and
linkers or nothing on its edges. Building blocks that do not fit the net, frameworks of more than `MOST` atoms and those
whose building blocks touch are drawn anew. Nothing is relaxed. Framework k depends on k alone, so that a set can be
made in parts and by several processes, each with its own file.

Building and measuring may hang or end the process, so each framework has a process of its own and a time limit; one
without result is left out.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.io import read, write
from ase.neighborlist import neighbor_list

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from resumable import collect

HERE = Path(__file__).resolve().parent
NETS = (
    "pcu", "dia", "srs", "nbo", "acs", "bcu", "fcu", "hex", "ths", "cds", "lvt", "pts", "rtl", "pyr", "bor", "flu",
    "sod", "qtz", "sra", "bnn", "reo", "stp", "scu", "kag", "fsc", "dmp", "hms", "gra", "lon", "unc", "sxb", "nia",
    "pth", "shp", "lcy", "msw", "mot", "sur", "utp", "bbf", "dft", "cdz", "hst", "tfa", "sit", "bto", "twt", "mmt",
)  # fmt: skip
"""Of the Reticular Chemistry Structure Resource, all with at most 12 nodes in the cell."""
NOT_METALS = frozenset(["H", "B", "C", "N", "O", "F", "Si", "P", "S", "Cl", "Se", "Br", "I", "X"])
MOST = 250
"""Atoms of a framework."""
DENSEST = 0.05
"""Atoms per Å³; each framework has a density of its own that it does not fall below, between zero and this."""
MISFIT = 0.3
"""Largest root mean square deviation of a building block's directions from those of its node."""
TOUCH = 1.5
"""Å: atoms of two building blocks come no closer, but for those that are bound to each other."""
LINKED = 0.25
"""Share of the kinds of edges that get a linker; without, the building blocks of two nodes are bound to each other."""
STRETCH = 1.3
"""Longest bond between two building blocks, in sums of the covalent radii."""
REACH = 5.0
"""Å, beyond which no two atoms touch."""
DRAWS = 100
"""Sets of building blocks that are tried on a net before another one is taken."""
RESULT = "framework.extxyz"


class Library:
    """The nets and building blocks that pormake brings along."""

    def __init__(self) -> None:
        import pormake  # opens a log file where the process runs
        from pormake.log import logger

        logger.disabled = True
        self.pormake = pormake
        self.database = pormake.Database()
        self.names: dict[int, list[str]] = {}
        self.sizes: dict[int, list[int]] = {}
        for path in sorted(self.database.bb_dir.glob("*.xyz")):
            n, _, *lines = path.read_text(encoding="utf-8").splitlines()
            ends = sum(line.split()[0] == "X" for line in lines[: int(n)])
            self.names.setdefault(ends, []).append(path.stem)
            self.sizes.setdefault(ends, []).append(int(n) - ends)

    def net(self, name: str) -> Any:
        """The net of that name. The database's own function would write a cache beside its files."""
        return self.pormake.Topology(self.database.topo_dir / f"{name}.cgd")

    def draw(self, ends: int, rng: np.random.Generator) -> Any:
        """A building block with so many ends, one of few atoms more often than one of many."""
        share = np.array(self.sizes[ends]) ** -2.0
        return self.database.get_bb(str(rng.choice(self.names[ends], p=share / share.sum())))


def draw_blocks(library: Library, net: Any, rng: np.random.Generator) -> tuple[dict[int, Any], dict[Any, Any]]:
    """A building block for each kind of node, and a linker or None for each kind of edge."""
    nodes = {int(kind): library.draw(int(n), rng) for kind, n in zip(net.unique_node_types, net.unique_cn, strict=True)}
    kinds = [tuple(kind.tolist()) for kind in net.unique_edge_types]
    return nodes, {kind: library.draw(2, rng) if rng.random() < LINKED else None for kind in kinds}


def size(block: Any) -> int:
    """Atoms of a building block, without the ends X that only mark its bonds."""
    return 0 if block is None else int(np.count_nonzero(block.atoms.numbers))


def is_sound(library: Library, net: Any, nodes: dict[int, Any], edges: dict[Any, Any], least_density: float) -> bool:
    """Whether there is metal on a node, number and density of atoms are as wanted, and the building blocks fit."""
    if all(NOT_METALS.issuperset(block.atoms.symbols) for block in nodes.values()):
        return False
    blocks = [nodes[int(net.node_types[i])] for i in net.node_indices]
    blocks += [edges[kind_of(net, i)] for i in net.edge_indices]
    n_atoms = sum(map(size, blocks))
    if n_atoms > MOST or n_atoms < least_density * volume(net, nodes, edges):
        return False
    locator = library.pormake.Locator()
    return all(
        locator.calculate_rmsd(place, nodes[int(kind)]) <= MISFIT
        for kind, place in zip(net.unique_node_types, net.unique_local_structures, strict=True)
    )


def kind_of(net: Any, edge: int) -> tuple[int, int]:
    """The kinds of nodes at both ends of an edge."""
    first, second = net.edge_types[edge]
    return int(first), int(second)


def volume(net: Any, nodes: dict[int, Any], edges: dict[Any, Any]) -> float:
    """About that of the cell, Å³, when the net's edges are as long in the mean as the building blocks ask for."""
    asked, drawn = 0.0, 0.0
    for i in net.edge_indices:
        linker = edges[kind_of(net, i)]
        asked += sum(np.mean(nodes[end].lengths) for end in kind_of(net, i))
        asked += 0.0 if linker is None else 2.0 * np.mean(linker.lengths)
        first, second = net.neighbor_list[i]
        drawn += np.linalg.norm(second.distance_vector - first.distance_vector)
    return float(net.atoms.get_volume() * (asked / drawn) ** 3)


def has_room(framework: Any) -> bool:
    """Whether building blocks touch only where they are bound to each other, and no such bond is stretched."""
    atoms = framework.atoms
    radii = covalent_radii[atoms.numbers]
    sizes = [size(block) for block in framework.info["located_bbs"]]
    own = np.repeat(np.arange(len(sizes)), sizes)
    bonds = {(min(bond), max(bond)) for bond in framework.bonds.tolist()}
    if any(own[i] != own[j] and atoms.get_distance(i, j, mic=True) > STRETCH * (radii[i] + radii[j]) for i, j in bonds):
        return False
    i, j, distance, shift = neighbor_list("ijdS", atoms, REACH)
    # building blocks are in one piece, so what is near across a border of the cell is another one, or an image
    apart = (own[i] != own[j]) | shift.any(axis=1)
    close = apart & (distance < np.maximum(TOUCH, 1.15 * (radii[i] + radii[j])))
    return all(pair in bonds for pair in zip(i[close].tolist(), j[close].tolist(), strict=True) if pair[0] <= pair[1])


def build(number: int) -> Atoms:
    """The framework of that number, with what it is made of."""
    library, rng = Library(), np.random.default_rng([2024, number])
    least_density = rng.uniform(0.0, DENSEST)  # else most would have wide pores
    while True:
        name = str(rng.choice(NETS))
        net = library.net(name)
        found = sound_blocks(library, net, rng, least_density)
        if found is None:
            continue
        framework = library.pormake.Builder().build_by_type(net, *found, wrap=False)
        if has_room(framework):
            return described(framework.atoms, name, *found)


def sound_blocks(
    library: Library, net: Any, rng: np.random.Generator, least_density: float
) -> tuple[dict[int, Any], dict[Any, Any]] | None:
    """Building blocks for nodes and edges that are sound together, or None where no draw is."""
    for _ in range(DRAWS):
        nodes, edges = draw_blocks(library, net, rng)
        if is_sound(library, net, nodes, edges, least_density):
            return nodes, edges
    return None


def described(framework: Atoms, net: str, nodes: dict[int, Any], edges: dict[Any, Any]) -> Atoms:
    """The atoms in a cell whose first vector is along x, with the names of net and building blocks."""
    atoms = Atoms(framework.numbers, framework.positions, cell=framework.cell, pbc=True)
    atoms.set_cell(atoms.cell.standard_form()[0], scale_atoms=True)
    atoms.wrap()
    linkers = ["none" if block is None else block.name for block in edges.values()]
    atoms.info = {"net": net, "nodes": " ".join(block.name for block in nodes.values()), "linkers": " ".join(linkers)}
    return atoms


def diameters(atoms: Atoms) -> tuple[float, float]:
    """Of the largest sphere that fits into the framework, and of the largest that can pass through it, Å.

    Both by Zeo++ with its own radii of atoms, those of the Cambridge Crystallographic Data Centre.
    """
    from pyzeo.extension import AtomNetwork

    lines = ["Unit cell vectors:"]
    lines += [f"v{name}= {x:.8f} {y:.8f} {z:.8f}" for name, (x, y, z) in zip("abc", atoms.cell.array, strict=True)]
    lines += [f"{len(atoms)}"]
    lines += [f"{atom.symbol} {atom.x:.8f} {atom.y:.8f} {atom.z:.8f}" for atom in atoms]
    Path("framework.v1").write_text("\n".join(lines) + "\n", encoding="utf-8")
    AtomNetwork.read_from_V1("framework.v1").calculate_free_sphere_parameters("framework.res")
    _, largest, free, _ = Path("framework.res").read_text(encoding="utf-8").split()
    return float(largest), float(free)


def make_here(number: int) -> None:
    """The labelled framework of that number, in the folder where the process runs."""
    atoms = build(number)
    atoms.info["value"], atoms.info["pld"] = diameters(atoms)
    write(RESULT, atoms, format="extxyz")


def make_apart(number: int, time_limit: float) -> Atoms:
    """The same in a process and a folder of its own.

    Raises:
        RuntimeError: where that ends without a result or takes too long.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(Path(__file__).resolve()), "--here", "--first", str(number)]
        try:
            ended = subprocess.run(
                command, cwd=folder, timeout=time_limit, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"no result in {time_limit:g} s") from error
        if ended.returncode != 0:
            said = ended.stderr.strip().splitlines() or ["nothing said"]
            raise RuntimeError(f"ended with {ended.returncode}: {said[-1]}")
        return read(Path(folder) / RESULT, format="extxyz")


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the frameworks asked for that the file does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=1000, help="of frameworks (1000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first framework (0)")
    parser.add_argument("--output", type=Path, default=HERE / "frameworks.extxyz")
    parser.add_argument("--time-limit", type=float, default=300.0, help="seconds for a framework (300)")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # the process of one framework
    args = parser.parse_args(arguments)
    if args.here:
        make_here(args.first)
        return
    missing = [name for name in ("pormake", "pyzeo") if importlib.util.find_spec(name) is None]
    if missing:
        parser.error(f"{' and '.join(missing)} not found; pip install pormake pyzeo")
    numbers = range(args.first, args.first + args.number)
    collect(args.output, numbers, "framework", lambda number: make_apart(number, args.time_limit))


if __name__ == "__main__":
    main()
