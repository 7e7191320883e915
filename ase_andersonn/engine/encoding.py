"""From the geometry to its part of the cell, and derivatives back, block by block.

Blocks of atoms stay in the cache. In small systems what a block's derivatives need is kept from the encoding to the
forces; in large ones it is computed again, so that memory grows with gates and
messages alone. With messages, those of all blocks are computed before the first block receives any.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ase_andersonn.backends import CompileMode
from ase_andersonn.nn.equilibrium_cell import Injection
from ase_andersonn.nn.messages import gathered
from ase_andersonn.nn.neighborhoods import Neighborhoods
from ase_andersonn.structures.graph import Graph

from .functions import Functions, message_vjp

BLOCK = 256
"""Atoms in a block on the CPU."""
BLOCK_NATIVE = 1024
"""The same with kernels in C++, which go through the layers atom by atom themselves."""
BLOCK_CUDA = 16384
"""Atoms in a block on a GPU."""
KEPT_ATOMS = 16384
"""Larger systems encode their neighbourhoods again for the forces instead of keeping what the derivatives need."""


class Step(NamedTuple):
    """A function of a block of atoms, with its derivatives.

    Attributes:
        inputs: edge vectors and, where messages are received, also node features and messages.
        outputs: of `Functions`.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def pull(self, cotangents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The derivatives in the inputs."""
        return torch.autograd.grad(self.outputs, self.inputs, cotangents)


class Encoding(NamedTuple):
    """What the geometry gives, and how it was computed where its derivatives are wanted.

    Attributes:
        injection: the geometry's part of the cell; `u` and `v` of the receivers.
        pair: energies that depend on the geometry alone [n_atoms], eV.
        tape: steps of the blocks' embeddings and of their injections, or None where they are computed anew.
        node: node features [n_atoms, any], of models with messages before the solve.
        message: these messages [n_members, n_message].
    """

    injection: Injection
    pair: Tensor
    tape: tuple[list[Step], list[Step]] | None = None
    node: Tensor | None = None
    message: Tensor | None = None


def default_block(device: torch.device, mode: CompileMode) -> int:
    """Atoms in a block, if nothing else was chosen."""
    return BLOCK_CUDA if device.type != "cpu" else BLOCK_NATIVE if mode == "native" else BLOCK


class Encoder:
    """The encoding of one model on one device.

    Args:
        functions: the model's.
        compiled: what compiles a function.
        block: atoms whose encoding is computed at once.
    """

    def __init__(self, functions: Functions, compiled: Callable[[Any], Any], block: int = BLOCK) -> None:
        self.has_messages = bool(functions.model.n_message)
        self.first = compiled(functions.embed if self.has_messages else functions.encode_block)
        self.second = compiled(functions.inject)
        self.block = block

    def blocks(self, n_atoms: int) -> Iterator[slice]:
        """Slices of at most `block` atoms that cover all."""
        return (slice(start, min(start + self.block, n_atoms)) for start in range(0, n_atoms, self.block))

    def encode(self, graph: Graph, species: Tensor, *, keep: bool, n_receivers: int | None = None) -> Encoding:
        """The geometry's part of the cell.

        Args:
            graph: structures.
            species: [n_members]; there may be more members than rows in the graph, which are then neighbours only, and
                send no messages.
            keep: whether derivatives in the edge vectors will be asked for.
            n_receivers: number of the first rows alone whose `u` and `v` are wanted, all neighbours of which are rows;
                None for all.
        """
        keep = keep and graph.n_atoms <= KEPT_ATOMS
        first = [self._first(graph, species, b, keep) for b in self.blocks(graph.n_atoms)]
        if not self.has_messages:
            u, v, gates, pair = _joined(first)
            return Encoding(Injection(u, v, gates), pair, (first, []) if keep else None)
        node, message, gates, pair = _joined(first)
        message = _padded(message, len(species))
        receivers = self.blocks(graph.n_atoms if n_receivers is None else n_receivers)
        second = [self._second(graph, species, b, node, message, keep) for b in receivers]
        u, v = _joined(second)
        return Encoding(Injection(u, v, gates), pair, (first, second) if keep else None, node, message)

    def pull(
        self,
        graph: Graph,
        species: Tensor,
        encoding: Encoding,
        of_cell: Callable[[slice], tuple[Tensor, Tensor]],
        of_rest: Callable[[slice], tuple[Tensor, Tensor]],
    ) -> Tensor:
        """Derivatives in the edge vectors [n_atoms, n_neighbors, 3].

        Args:
            graph, species: as in `encode`.
            encoding: what came out of it.
            of_cell: cotangents of `u` and `v` of a block of receivers.
            of_rest: cotangents of the gates and the pair energies of a block.
        """
        first, second = encoding.tape or (None, None)
        of_first, gradient = of_cell, None
        if encoding.node is not None and encoding.message is not None:
            pulled = []
            for k, b in enumerate(self.blocks(len(encoding.injection.u))):
                step = second[k] if second else self._second(graph, species, b, encoding.node, encoding.message, True)
                pulled.append(step.pull(of_cell(b)))
            gradient, of_own, of_received = (_padded(torch.cat(x), graph.n_atoms) for x in zip(*pulled, strict=True))
            del pulled
            of_messages = message_vjp(of_received, graph.reverse)

            def of_first(b: slice) -> tuple[Tensor, Tensor]:
                return of_own[b], of_messages[b]

        direct = []
        for k, b in enumerate(self.blocks(graph.n_atoms)):
            step = first[k] if first else self._first(graph, species, b, True)
            direct.append(step.pull((*of_first(b), *of_rest(b)))[0])
        found = torch.cat(direct)
        return found if gradient is None else found + gradient

    def _first(self, graph: Graph, species: Tensor, b: slice, keep: bool) -> Step:
        """What a block's own neighbourhoods give."""
        with torch.set_grad_enabled(keep):
            vectors = graph.vectors[b].detach().requires_grad_(keep)
            outputs = self.first(Neighborhoods(vectors, species[b], species[graph.neighbors[b]], graph.mask[b]))
            return Step((vectors,), outputs)

    def _second(self, graph: Graph, species: Tensor, b: slice, node: Tensor, message: Tensor, keep: bool) -> Step:
        """Injection of a block from its node features and the messages of its neighbours."""
        own = graph.neighbors[b]
        inputs = tuple(x.detach().requires_grad_(keep) for x in (graph.vectors[b], node[b], gathered(message, own)))
        with torch.set_grad_enabled(keep):
            vectors, *others = inputs
            outputs = self.second(Neighborhoods(vectors, species[b], species[own], graph.mask[b]), *others)
            return Step(inputs, outputs)


def _joined(steps: list[Step]) -> list[Tensor]:
    """The outputs of all blocks, without their derivatives."""
    parts = zip(*(step.outputs for step in steps), strict=True)
    return [(blocks[0] if len(blocks) == 1 else torch.cat(blocks)).detach() for blocks in parts]


def _padded(rows: Tensor, n_rows: int) -> Tensor:
    """With zeros for the rows that are missing at the end."""
    if len(rows) == n_rows:
        return rows
    return torch.cat([rows, rows.new_zeros(n_rows - len(rows), *rows.shape[1:])])
