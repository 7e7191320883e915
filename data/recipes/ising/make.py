"""Make the packaged Ising model: configurations, training on 8×8 lattices, test on 8×8 and 128×128, the model card.

    E = −J Σ_<ij> s_i s_j,    square lattice, periodic, J = 1 eV

python make.py       # a minute; configurations that are there already, as after an interruption, are not drawn again
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from ase_andersonn.checkpoints.checkpoint import save_model
from ase_andersonn.lattice.model import GridConfig, GridModel
from ase_andersonn.lattice.spins import spin_lattice
from ase_andersonn.pretrained.catalog import PRETRAINED

HERE = Path(__file__).parent
CONFIG = GridConfig(lattice="square", focus=1, context=1, network="fully_connected", n_hidden=32)
SETS = {"train": (2000, 8), "test": (2000, 8), "test-128": (200, 128)}
"""Number of configurations and sites along an edge."""
SWEEPS = 300
BETA = 1.0
"""Configurations are drawn at 1/(k_B T) from −BETA to BETA, in 1/J: from one ground state to the other."""

Spins = NDArray[np.int8]


def draw(n: int, size: int, sweeps: int, rng: np.random.Generator) -> Spins:
    """Configurations [n, size, size] by heat bath, black and white sites in turn, each at a temperature of its own."""
    spins = rng.choice(np.array([-1, 1], np.int8), (n, size, size))
    beta = rng.uniform(-BETA, BETA, n)[:, None, None]
    black = np.indices((size, size)).sum(0) % 2 == 0
    for _ in range(sweeps):
        for sites in (black, ~black):
            field = sum(np.roll(spins, shift, axis) for shift in (-1, 1) for axis in (1, 2))
            up = rng.random(spins.shape) < 1 / (1 + np.exp(-2 * beta * field))
            spins = np.where(sites, np.where(up, 1, -1), spins).astype(np.int8)
    return spins


def ising_energy(spins: Spins) -> NDArray[np.float64]:
    """Exact energies [n], J."""
    bonds = sum(spins * np.roll(spins, 1, axis) for axis in (1, 2))
    energies: NDArray[np.float64] = -np.asarray(bonds).sum((1, 2), dtype=float)
    return energies


def configurations(name: str, folder: Path, sweeps: int) -> Spins:
    """A set of configurations, from its file where there is one."""
    path = folder / f"{name}.npz"
    n, size = SETS[name]
    if not path.exists():
        rng = np.random.default_rng(list(SETS).index(name))
        spins = draw(n, size, sweeps, rng)
        np.savez_compressed(path.with_suffix(".part.npz"), up=np.packbits(spins > 0))
        path.with_suffix(".part.npz").replace(path)
    up = np.unpackbits(np.load(path)["up"], count=n * size * size)
    return (2 * up.astype(np.int8) - 1).reshape(n, size, size)


def tile_counts(spins: Spins) -> torch.Tensor:
    """How often each of the 512 contents of a 3×3 tile stands in each configuration [n, 512]."""
    up, codes = (spins > 0).astype(np.int64), np.zeros(spins.shape, np.int64)
    for bit, (i, j) in enumerate(np.ndindex(3, 3)):
        codes += np.roll(up, (1 - i, 1 - j), (1, 2)) << bit
    return torch.from_numpy(np.stack([np.bincount(c.ravel(), minlength=512) for c in codes])).double()


def train(model: GridModel, spins: Spins, steps: int) -> float:
    """Least squares of the energies of whole configurations by Levenberg and Marquardt's method; the RMSE, J.

        (JᵀJ + μ) δ = −Jᵀr,    r = N e(θ) − E,    J = N ∂e/∂θ

    The network is asked for each of the 512 tiles once; `N` counts them in the configurations, so what is fitted is
    the sum alone. (5,000 steps of L-BFGS, a minute, stop at 5e-3 J.)
    """
    counts, target = tile_counts(spins), torch.from_numpy(ising_energy(spins))
    codes = torch.arange(512)
    tiles = (2.0 * (codes[:, None] >> torch.arange(9) & 1) - 1.0).double().view(-1, 1, 3, 3)
    names, start = zip(*model.network.named_parameters(), strict=True)
    theta, damping = torch.nn.utils.parameters_to_vector(start).detach(), 1.0

    def energy(theta: torch.Tensor, tile: torch.Tensor) -> torch.Tensor:
        parts = torch.split(theta, [p.numel() for p in start])
        weights = {name: part.view_as(p) for name, part, p in zip(names, parts, start, strict=True)}
        return torch.func.functional_call(model.network, weights, (tile[None],)).sum()

    table = torch.func.vmap(energy, (None, 0))
    slopes = torch.func.vmap(torch.func.grad(energy), (None, 0))
    residual = counts @ table(theta, tiles) - target
    for _ in range(steps):
        jacobian = counts @ slopes(theta, tiles)
        normal, gradient = jacobian.T @ jacobian, jacobian.T @ residual
        while damping < 1e12:
            trial = theta - torch.linalg.solve(normal + damping * torch.eye(len(theta)), gradient)
            after = counts @ table(trial, tiles) - target
            if after.square().sum() < residual.square().sum():
                theta, residual, damping = trial, after, max(damping / 3, 1e-9)
                break
            damping *= 4
        else:
            break
    torch.nn.utils.vector_to_parameters(theta, model.network.parameters())
    return float(residual.square().mean().sqrt())


def errors(model: GridModel, spins: Spins) -> dict[str, float]:
    """Absolute errors of the energies, J, by the calculator in its default precision, float32."""
    from ase_andersonn import AndersoNN

    atoms, calc = spin_lattice("square", spins.shape[1]), AndersoNN(model, device="cpu")
    found = np.empty(len(spins))
    for k, configuration in enumerate(spins):
        atoms.set_initial_magnetic_moments(configuration.reshape(-1).astype(float))
        found[k] = calc.get_potential_energy(atoms)
    off = np.abs(found - ising_energy(spins))
    return {
        "configurations": len(spins),
        "energy_median_absolute_error_J": float(f"{np.median(off):.3g}"),
        "energy_largest_absolute_error_J": float(f"{off.max():.3g}"),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=HERE / "run", help="folder of the configurations")
    parser.add_argument("--output", type=Path, default=PRETRAINED / "ising.safetensors")
    parser.add_argument("--steps", type=int, default=200, help="of the fit")
    parser.add_argument("--sweeps", type=int, default=SWEEPS, help="of the heat bath")
    options = parser.parse_args(arguments)
    options.run.mkdir(parents=True, exist_ok=True)
    sets = {name: configurations(name, options.run, options.sweeps) for name in SETS}
    torch.manual_seed(0)
    model = GridModel(CONFIG).double()
    error = train(model, sets["train"], options.steps)
    print(f"RMSE {error:.2e} J on the training configurations, {options.steps} steps")
    model = model.float()
    card = {
        **yaml.safe_load((HERE / "card.yaml").read_text(encoding="utf-8")),
        "parameters": sum(p.numel() for p in model.parameters()),
        "test": {f"{SETS[name][1]}x{SETS[name][1]}": errors(model, sets[name]) for name in ("test", "test-128")},
    }
    save_model(model, options.output, card)
    print(json.dumps(card["test"], indent=1))


if __name__ == "__main__":
    main()
