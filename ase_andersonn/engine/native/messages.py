"""Sums of messages over neighbours in C++, without derivatives."""

import torch
from torch import Tensor

from ase_andersonn.nn.equilibrium_cell import CellWeights

from .kernel import call


class NativeCellWeights(CellWeights):
    """Weights of a cell of scalars whose messages are summed in C++."""

    __slots__ = ()

    def sum_messages(self, gates: Tensor, sent: Tensor, neighbors: Tensor, *, transposed: bool = False) -> Tensor:  # noqa: ARG002
        """See `CellWeights.sum_messages`; the transposed sum of scalars is the same."""
        tensors = [x.contiguous() for x in (gates, sent, neighbors)]
        out = torch.empty_like(gates[:, 0])
        call("message_sum", *tensors, out, first=(torch.get_num_threads(), *gates.shape))
        return out
