"""Systems whose averages are known, as calculators: some for every move in full, some that take part in moves."""

import itertools

import numpy as np
from ase import Atoms

from ase_andersonn.mc import estimate


class Energy:
    """Not ASE's Calculator, but what ASE's Atoms ask of one: an energy from a function of the atoms."""

    name = "energy"

    def __init__(self, function):
        self.function, self.calls = function, 0

    def get_potential_energy(self, atoms, force_consistent=False):
        self.calls += 1
        return self.function(atoms)


class LocalEnergyOf:
    """A sum over atoms of a function of one atom's position, number and moment, evaluated where atoms were touched."""

    name = "local"

    def __init__(self, one_atom):
        self.one_atom, self.committed, self.trial = one_atom, None, None
        self.log = []

    def get_potential_energy(self, atoms, force_consistent=False):
        return float(sum(self._of(atoms, np.arange(len(atoms)))))

    def _of(self, atoms, which):
        moments = atoms.arrays.get("initial_magmoms")
        spins = np.zeros(len(which)) if moments is None else moments[which]
        return self.one_atom(which, atoms.arrays["positions"][which], atoms.arrays["numbers"][which], spins)

    def trial_energy(self, atoms, changed):
        assert self.trial is None, "the last proposal was not committed"
        assert changed.dtype == np.int64
        self.log.append(("trial_energy", len(changed)))
        energies = np.array(self._of(atoms, changed), float)
        if len(changed) == len(atoms):
            self.trial = (slice(None), energies, float(energies.sum()))
        else:
            total = self.committed[1] + float((energies - self.committed[0][changed]).sum())
            self.trial = (changed, energies, total)
        return self.trial[2]

    def commit(self, accepted):
        assert self.trial is not None, "nothing was proposed"
        self.log.append(("commit", accepted))
        (changed, energies, total), self.trial = self.trial, None
        if accepted and isinstance(changed, slice):
            self.committed = [energies, total]
        elif accepted:
            self.committed[0][changed] = energies
            self.committed[1] = total

    def reset(self):
        self.committed = self.trial = None


class Ising:
    """E = -J sum_<ij> m_i m_j - h sum_i m_i on a square lattice that repeats, atoms row by row."""

    name = "ising"

    def __init__(self, side, coupling=1.0, field=0.0):
        self.side, self.coupling, self.field = side, coupling, field
        sites = np.arange(side * side).reshape(side, side)
        rolls = [(1, 0), (-1, 0), (1, 1), (-1, 1)]
        self.neighbors = np.stack([np.roll(sites, by, axis).ravel() for by, axis in rolls], 1)
        self.committed = None
        self.waiting = None
        self.total = 0.0

    def full(self, m):
        return float(-0.5 * self.coupling * (m[:, None] * m[self.neighbors]).sum() - self.field * m.sum())

    def get_potential_energy(self, atoms, force_consistent=False):
        return self.full(atoms.arrays["initial_magmoms"])

    def _changes(self, m, changed):
        local = self.coupling * self.committed[self.neighbors[changed]].sum(1) + self.field
        return -(m[changed] - self.committed[changed]) * local

    def trial_energy(self, atoms, changed):
        m = atoms.arrays["initial_magmoms"]
        if len(changed) == len(atoms):
            self.waiting = (changed, m.copy(), self.full(m))
        else:
            assert len(changed) == 1
            self.waiting = (changed, m[changed], self.total + float(self._changes(m, changed).sum()))
        return self.waiting[2]

    def commit(self, accepted):
        changed, m, total = self.waiting
        if accepted:
            if len(changed) == self.side**2:
                self.committed = m
            else:
                self.committed[changed] = m
            self.total = total
        self.waiting = None

    def independent_sets(self, atoms):
        row, column = np.divmod(np.arange(len(atoms)), self.side)
        return [np.flatnonzero((row + column) % 2 == parity) for parity in (0, 1)]

    def trial_energy_changes(self, atoms, changed):
        m = atoms.arrays["initial_magmoms"]
        changes = self._changes(m, changed)
        self.waiting = (changed, m[changed], changes)
        return changes

    def commit_each(self, accepted):
        changed, m, changes = self.waiting
        self.committed[changed[accepted]] = m[accepted]
        self.total += float(changes[accepted].sum())

    def reset(self):
        self.committed = self.waiting = None


class Sites:
    """Atoms that feel no other, as a system of one colour whose energies depend on the number alone."""

    name = "sites"

    def __init__(self, energies):
        self.table = np.zeros(120)
        for number, energy in energies.items():
            self.table[number] = energy

    def trial_energy(self, atoms, changed):
        if len(changed) == len(atoms):
            self.waiting = atoms.numbers.copy()
        else:
            self.waiting = self.committed.copy()
            self.waiting[changed] = atoms.numbers[changed]
        return float(self.table[self.waiting].sum())

    def commit(self, accepted):
        if accepted:
            self.committed = self.waiting

    def independent_sets(self, atoms):
        return [np.arange(0, len(atoms), 2), np.arange(1, len(atoms), 2)]

    def trial_energy_changes(self, atoms, changed):
        self.many = (changed, atoms.numbers[changed])
        return self.table[atoms.numbers[changed]] - self.table[self.committed[changed]]

    def commit_each(self, accepted):
        changed, numbers = self.many
        self.committed[changed[accepted]] = numbers[accepted]


def lattice(side, moments=None):
    """Hydrogen atoms on a square lattice, row by row, with spins up or as given."""
    row, column = np.divmod(np.arange(side * side), side)
    positions = np.stack([2.0 * column, 2.0 * row, np.zeros(side * side)], 1)
    spins = np.ones(side * side) if moments is None else moments
    return Atoms(f"H{side * side}", positions=positions, cell=[2 * side, 2 * side, 2], pbc=True, magmoms=spins)


def enumerate_ising(side, kT, coupling=1.0, field=0.0):
    """Exact <E>, <E^2> and <|M|>."""
    states = np.array(list(itertools.product((-1.0, 1.0), repeat=side * side)))
    neighbors = Ising(side).neighbors[:, [0, 2]]  # each bond once
    bonds = sum((states * states[:, neighbors[:, k]]).sum(1) for k in (0, 1))
    energies = -coupling * bonds - field * states.sum(1)
    weights = np.exp(-(energies - energies.min()) / kT)
    weights /= weights.sum()
    return weights @ energies, weights @ energies**2, weights @ np.abs(states.sum(1))


def sample(mc, function, steps, every=1):
    """Values of a function of the atoms every so many steps."""
    values = []
    mc.attach(lambda: values.append(function(mc.atoms)) if mc.nsteps else None, every)
    mc.run(steps)
    return np.array(values, float)


SIGMAS, POWER = 4.5, 1.645
"""Standard errors that a right mean may be off (5 in a million are further), and those above which 95 % lie."""


def assert_mean(series, expected, detects):
    """The mean of a correlated series is what is expected, and a wrong one would be found.

    A mean that is off by the share `detects` of what is expected fails with a probability of 95 % or more: the series
    has to be long enough for that. Errors of kT, pressures, potentials and in criteria as small as a part in a million
    are found by `test_exact_acceptance`; here it is the way of the whole to its average, at an affordable length.

    Args:
        series: [n].
        expected: the exact mean, not zero.
        detects: relative deviation.
    """
    found = estimate(series)
    assert found.reliable, str(found)
    finds = (SIGMAS + POWER) * found.error / abs(expected)
    assert finds <= detects, f"{found} detects deviations of {finds:.3f} only"
    assert abs(found.mean - expected) <= SIGMAS * found.error, f"{found}, expected {expected}"
    return found
