"""Blocks of structures: divided, computed here or on Dask workers, and each kept in the journal when it is done."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from tqdm import tqdm

from ase_andersonn.workflows._results import plain

from .cluster import WorkersDied, spread
from .journal import Journal
from .work import StructureResult, Work

BLOCK_ATOMS = 256
"""Atoms of a block, about: the size of a batch, and the most that an interruption loses."""


@dataclass(frozen=True)
class BlockComputation:
    """Computes structures in blocks and keeps the results.

    Attributes:
        journal: holds what was computed before, and takes each new block.
        block_atoms: atoms of a block, about.
        client: a Dask client, or None to compute in this process.
        patience: seconds without any worker after which the screening is given up.
        progress: whether to show a progress bar.
    """

    journal: Journal
    block_atoms: int
    client: Any
    patience: float
    progress: bool

    def __call__(self, work: Work, kind: str, structures: Mapping[int, Atoms]) -> dict[int, StructureResult]:
        """Results by index: those of the journal, and the others computed."""
        blocks = list(_blocks(structures, self.block_atoms))
        keys = [_key(kind, [structures[k] for k in block]) for block in blocks]
        results: dict[int, StructureResult] = {}
        todo: dict[str, list[int]] = {}
        for key, block in zip(keys, blocks, strict=True):
            if key in self.journal.found:
                results |= zip(block, self.journal.found[key], strict=True)
            else:
                todo[key] = block
        with tqdm(
            total=len(structures),
            initial=len(results),
            unit=f" {kind}s",
            disable=None if self.progress else True,
        ) as bar:
            for key, found in self._computed(work, {key: [structures[k] for k in todo[key]] for key in todo}):
                if isinstance(found, WorkersDied):  # not kept in the journal, so that resuming tries again
                    found = [_lost(found) for _ in todo[key]]
                else:
                    found = self.journal.write(key, found)
                results |= zip(todo[key], found, strict=True)
                bar.update(len(todo[key]))
        same = {key: block for key, block in zip(keys, blocks, strict=True) if block[0] in results}
        for key, block in zip(keys, blocks, strict=True):  # equal blocks are computed once
            if block[0] not in results:
                results |= {k: results[other] for k, other in zip(block, same[key], strict=True)}
        return results

    def _computed(self, work: Work, blocks: Mapping[str, list[Atoms]]) -> Iterator[tuple[str, Any]]:
        """Key and results of each block, in the order in which they are done."""
        if self.client is None:
            yield from ((key, work(block)) for key, block in blocks.items())
            return
        keys = list(blocks)
        for index, found in spread(work, list(blocks.values()), self.client, self.patience):
            yield keys[index], found


def _lost(error: WorkersDied) -> StructureResult:
    """Result of a structure whose workers died."""
    return {"values": {}, "errors": {"relaxation": str(error)}, "converged": False, "atoms": None, "curves": {}}


def _blocks(structures: Mapping[int, Atoms], block_atoms: int) -> Iterator[list[int]]:
    """Indices in their order, in blocks of at most so many atoms, or of one larger structure."""
    block: list[int] = []
    n_atoms = 0
    for index, atoms in structures.items():
        if block and n_atoms + len(atoms) > block_atoms:
            yield block
            block, n_atoms = [], 0
        block.append(index)
        n_atoms += len(atoms)
    if block:
        yield block


def _key(kind: str, block: Sequence[Atoms]) -> str:
    """Checksum of the structures of a block, on which its results depend beside the settings."""
    digest = hashlib.sha256()
    for atoms in block:
        digest.update(json.dumps(plain([c.todict() for c in atoms.constraints])).encode())
        arrays = {**atoms.arrays, "cell": atoms.cell.array, "pbc": atoms.pbc}
        for name in sorted(arrays):
            values = np.ascontiguousarray(arrays[name])
            data = values.tobytes() if values.dtype.kind in "biuf" else repr(values.tolist()).encode()
            digest.update(f"{name} {values.dtype.str} {values.shape} ".encode() + data)
    return f"{kind} {digest.hexdigest()}"
