"""Averages of simulations that have none yet."""

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.lj import LennardJones
from test_metropolis import flat

from ase_andersonn.mc import Displacement, MetropolisMC, ParallelTempering


def test_averages_of_nothing_are_warned_of():
    mc = MetropolisMC(flat(), 300.0, Displacement(0.1), seed=1, equilibration=50)
    mc.run(20)
    with pytest.warns(UserWarning, match="no average yet: 20 steps were made, of which the first 50 are equilibration"):
        assert np.isnan(mc.energy_estimate.mean)
    replicas = [MetropolisMC(flat(), t, Displacement(0.1), seed=1, equilibration=50) for t in (300.0, 400.0)]
    tempering = ParallelTempering(replicas, exchange_interval=5, seed=1)
    tempering.run(2)  # of 5 steps
    with pytest.warns(UserWarning, match="no average yet"):
        assert np.isnan(replicas[0].energy_estimate.mean)


def test_averages_of_one_structure_are_warned_of():
    atoms = bulk("Ar", "fcc", 5.3, cubic=True) * 2
    atoms.calc = LennardJones(sigma=3.4, epsilon=0.0104, rc=5.0, smooth=True)
    mc = MetropolisMC(atoms, 1.0, Displacement(3.0), seed=1)
    mc.run(20)
    with pytest.warns(UserWarning, match="none of 20 moves was accepted"):
        assert mc.energy_estimate.n == 20
