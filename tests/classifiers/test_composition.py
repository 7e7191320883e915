"""Features of composition: the same for every cell, and right about the chemistry of well-known compounds."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from ase_andersonn.classifiers.features.composition import (
    NAMES,
    NAMES_OF_SPACE,
    composition_features,
    n_composition_features,
    oxidation_states,
)


def feature(formula: str, name: str) -> float:
    names = (*NAMES, *NAMES_OF_SPACE)
    return float(composition_features(Atoms(formula))[names.index(name) - len(names)])


@pytest.mark.parametrize("atoms", [bulk("NaCl", "rocksalt", 5.64), bulk("Mg"), bulk("GaAs", "zincblende", 5.65)])
def test_a_supercell_has_the_features_of_its_cell(atoms: Atoms) -> None:
    features = composition_features(atoms)
    assert features.shape == (n_composition_features(),)
    assert np.isfinite(features).all()
    assert np.allclose(composition_features(atoms.repeat((1, 2, 3))), features, atol=1e-12)
    assert np.allclose(composition_features(atoms[::-1]), features, atol=1e-12)


@pytest.mark.parametrize("formula", ["NaCl", "MgO", "TiO2", "Al2O3", "GaAs", "ZnS", "PbTe", "CaF2", "SrTiO3", "Li3N"])
def test_compounds_balance(formula: str) -> None:
    assert feature(formula, "imbalance") == pytest.approx(0.0, abs=1e-12)
    assert feature(formula, "odd") == 0.0


@pytest.mark.parametrize("formula", ["Cu", "CuZn", "NbO", "TiH2O5", "Na2Cl"])
def test_metals_and_odd_mixtures_do_not(formula: str) -> None:
    assert feature(formula, "imbalance") > 0.1


@pytest.mark.parametrize(
    ("formula", "inside", "outside"),
    [
        *[(formula, 0, 0) for formula in ("NaCl", "TiO2", "ZnO", "Cu2O", "WO3", "HfO2", "YbO")],
        *[("FeO", 3, 0), ("NiO", 4, 0), ("CuO", 9 / 2, 0), ("Ce2O3", 2 / 5, 0), ("WO2", 2 / 3, 0)],
        *[("PbO", 0, 1), ("SnO", 0, 1)],
    ],
)
def test_electrons_left_to_the_cations(formula: str, inside: float, outside: float) -> None:
    assert feature(formula, "left inside") == pytest.approx(inside)
    assert feature(formula, "left outside") == pytest.approx(outside)


def test_mixed_valence_balances_only_as_a_mixture() -> None:
    assert feature("Fe3O4", "imbalance") > 0.1
    assert feature("Fe3O4", "mixed imbalance") == 0.0


@pytest.mark.parametrize(("formula", "misfit"), [("NaCl", 0.0), ("MgO", 0.0), ("GaAs", 0.0), ("Al2O3", 0.0)])
def test_octets_are_filled(formula: str, misfit: float) -> None:
    assert feature(formula, "octet misfit") == pytest.approx(misfit, abs=1e-12)


def test_ionicity_rises_with_the_contrast() -> None:
    order = [feature(formula, "ionicity") for formula in ("Si", "GaAs", "ZnS", "NaCl", "CsF")]
    assert order == sorted(order)
    assert order[0] == 0.0


def test_what_has_no_volume_says_so() -> None:
    assert composition_features(molecule("H2O"))[-3:].tolist() == [0.0, 0.0, 0.0]
    assert composition_features(bulk("Cu"))[-1] == 1.0


def test_elements_beyond_the_table() -> None:
    with pytest.raises(ValueError, match=r"Z = \[110\]"):
        composition_features(Atoms("Ds"))
    with pytest.raises(ValueError, match=r"Z = \[0\]"):
        composition_features(Atoms("X"))


def test_many_elements_do_not_take_forever() -> None:
    assert np.isfinite(composition_features(Atoms("VCrMnTaNbMoWReOsCNSClSi"))).all()
    states = oxidation_states()
    assert len(states) > 90
    assert all(s == tuple(sorted(set(s))) for s in states.values())
