"""A Monte Carlo move in a file of its own, as another package would have it, samples its distribution."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from ase import Atoms, units
from mc_systems import LocalEnergyOf, assert_mean, sample

from ase_andersonn import MetropolisMC
from ase_andersonn.mc.context import Context
from ase_andersonn.mc.moves.base import Move, Trial

STEP, KT, STIFFNESS = 0.1, 0.03, 2.0


@dataclass(eq=False)
class Hop(Move):
    """Hop of one atom along x by `step`, Å, forwards or backwards alike: r = 0."""

    step: float = 0.1

    changes: ClassVar[frozenset[str]] = frozenset({"positions"})

    def check(self, context: Context) -> None:
        if not len(context.atoms):
            raise ValueError("there is no atom that could hop.")

    def propose(self, context: Context) -> Trial:
        atom, way = context.pick(len(context.atoms)), 2 * context.pick(2) - 1
        before = context.atoms.positions[atom, 0]
        context.atoms.positions[atom, 0] += way * self.step
        return Trial(np.array([atom]), 0.0, before)

    def undo(self, context: Context, trial: Trial) -> None:
        context.atoms.positions[trial.changed, 0] = trial.saved


def test_hops_sample_the_canonical_ensemble():
    """Atoms on the sites x = n d of a harmonic well have ⟨x²⟩ of the exact sum."""
    atoms = Atoms("H4", positions=np.zeros((4, 3)))
    atoms.calc = LocalEnergyOf(lambda _which, positions, *_: 0.5 * STIFFNESS * positions[:, 0] ** 2)
    mc = MetropolisMC(atoms, KT / units.kB, [Hop(STEP)], seed=1)
    sites = STEP * np.arange(-30, 31)
    weights = np.exp(-0.5 * STIFFNESS * sites**2 / KT)
    squares = sample(mc, lambda atoms: np.square(atoms.positions[:, 0]).mean(), 60_000, every=4)
    assert_mean(squares, float(weights @ sites**2 / weights.sum()), detects=0.1)
