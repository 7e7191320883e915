"""Maps whose fixed points are known."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Linear:
    """f(z) = z A + b with a symmetric A of the given spectral radius."""

    matrix: Tensor
    b: Tensor

    @staticmethod
    def random(seed: int, n_rows: int, n_channels: int, rho: float, dtype: torch.dtype = torch.float64) -> "Linear":
        generator = torch.Generator().manual_seed(seed)
        normal = torch.randn(n_channels, n_channels, generator=generator, dtype=torch.float64)
        vectors = torch.linalg.qr(normal)[0]
        values = torch.linspace(-rho, rho, n_channels, dtype=torch.float64)
        values[-1] = rho
        b = torch.randn(n_rows, n_channels, generator=generator, dtype=torch.float64)
        return Linear(((vectors * values) @ vectors.T).to(dtype), b.to(dtype))

    def __call__(self, z: Tensor) -> Tensor:
        return z @ self.matrix + self.b

    @property
    def start(self) -> Tensor:
        return torch.zeros_like(self.b)

    @property
    def solution(self) -> Tensor:
        """float64"""
        matrix = self.matrix.double()
        return torch.linalg.solve(torch.eye(len(matrix), dtype=torch.float64) - matrix.T, self.b.double().T).T


def saturating(linear: Linear, z: Tensor) -> Tensor:
    """A nonlinear contraction where ``linear`` is one."""
    return torch.tanh(z) @ linear.matrix + linear.b


class Recorded:
    """A map that remembers what it was asked and what it answered."""

    def __init__(self, f) -> None:
        self.f, self.points, self.values = f, [], []

    def __call__(self, z: Tensor) -> Tensor:
        self.points.append(z.clone())
        self.values.append(self.f(z))
        return self.values[-1]
