"""Random numbers that are chosen at the time, so that what a simulation does with them is tested exactly."""

import itertools

import numpy as np

EDGE = 1e-9
"""A decision is tried with ln u so far, relative to the logarithms it is made of, to either side of ln a."""


class Dice:
    """A generator whose exponential variates, which decide over moves, come from a function; others are drawn.

    Args:
        decide: of the number of variates (None for a scalar), gives them.
        seed: of all other numbers.
    """

    def __init__(self, decide, seed=0):
        self.decide, self.rng, self.decisions = decide, np.random.default_rng(seed), 0

    def standard_exponential(self, size=None):
        self.decisions += 1
        return self.decide(size)

    def random(self, *args, **kwargs):
        return self.rng.random(*args, **kwargs)

    def choice(self, *args, **kwargs):
        return self.rng.choice(*args, **kwargs)

    def integers(self, *args, **kwargs):
        return self.rng.integers(*args, **kwargs)


class Script:
    """A generator that gives the numbers of a list, and no others."""

    def __init__(self, numbers):
        self.numbers = list(numbers)

    def random(self, size=None):
        if size is None:
            return self.numbers.pop(0)
        return np.array([self.numbers.pop(0) for _ in range(int(np.prod(size)))]).reshape(size)


def outcomes(context, move, state_of, n_random, grid):
    """Probabilities of the states a move proposes: every grid point of all its random numbers is tried once.

    Exact for moves that choose among numbers of things which divide the grid.

    Args:
        context: of a simulation.
        move: undone after each trial.
        state_of: a hashable description of the atoms.
        n_random: random numbers a proposal draws at most.
        grid: points in (0, 1) for each of them.
    """
    found = {}
    points = (np.arange(grid) + 0.5) / grid
    before, rng = state_of(context.atoms), context.rng
    for numbers in itertools.product(points, repeat=n_random):
        context.rng = Script(numbers)
        trial = move.propose(context)
        state = state_of(context.atoms)
        found[state] = found.get(state, 0.0) + float(grid) ** -n_random
        if trial is not None:
            move.undo(context, trial)
        assert state_of(context.atoms) == before
    context.rng = rng
    return found


class Verdicts:
    """Runs a simulation and holds each decision to exp(ln a), to one part in 10^9 of the logarithms in it.

    Where a move is to be accepted with probability a < 1, ln u is put just above or just below ln a in turn, so that
    the decision is known. A factor 1 ± 1e-6 in a temperature, pressure or chemical potential, or a term left out, is
    found with certainty, not with a probability.

    Args:
        mc: a simulation, whose random numbers are replaced.
        log_weight: of atoms, the logarithm of the ensemble's density in the coordinates that the move draws evenly.
        log_proposal: of the atoms before and after, ln q(new -> old) / q(old -> new) in these coordinates.
    """

    def __init__(self, mc, log_weight, log_proposal=lambda before, after: 0.0):
        self.mc, self.log_weight, self.log_proposal = mc, log_weight, log_proposal
        self.accept, self.doubtful = True, {True: 0, False: 0}
        mc.context.rng = Dice(self._decide, seed=1)

    def _decide(self, size):
        assert size is None
        after = self.log_weight(self.mc.atoms)
        log_a = after - self.log_weight(self.before) + self.log_proposal(self.before, self.mc.atoms)
        edge = EDGE * max(1.0, abs(after))
        if log_a > -10 * edge:
            self.accept = True
            return 0.0 if log_a > 10 * edge else 20 * edge
        self.accept = not self.accept
        self.doubtful[self.accept] += 1
        return -log_a + (edge if self.accept else -edge)

    def run(self, steps, each=20):
        """So many steps, with at least `each` decisions near ln a < 0 to both sides."""
        for _ in range(steps):
            self.before, decisions = self.mc.atoms.copy(), self.mc.context.rng.decisions
            accepted = sum(record.accepted for record in self.mc.statistics.values())
            self.mc.run(1)
            if self.mc.context.rng.decisions == decisions:
                continue
            assert self.mc.context.rng.decisions == decisions + 1
            now = sum(record.accepted for record in self.mc.statistics.values()) > accepted
            assert now == self.accept, f"step {self.mc.nsteps}"
            if not now:
                assert self.mc.atoms == self.before
        assert min(self.doubtful.values()) >= each, self.doubtful
