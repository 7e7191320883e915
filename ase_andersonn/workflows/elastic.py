"""Elastic constants: the slope of the stress in small strains, with relaxed atoms.

    σ_i = Σ_j C_ij ε_j    (Voigt, i and j of xx yy zz yz xz xy; shears count twice)

from four strains along each of the six directions, all in one batch; averages, anisotropy and Debye temperature are
pymatgen's, M. de Jong et al., Scientific Data 2, 150009 (2015).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms, units
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import NDArray

from ._axes import standard_axes
from ._evaluate import check_calculator, check_positive, evaluate_all, read_structure
from ._results import Result
from .relax import at_rest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
PARTS = (-1.0, -0.5, 0.5, 1.0)
"""Of the largest strain, along each direction."""
STIFFNESS = 1e-6
"""Of the largest eigenvalue; a smaller one is round-off of none, as of layers and molecules in a vacuum."""
VOIGT = ("xx", "yy", "zz", "yz", "xz", "xy")


@dataclass(frozen=True, repr=False)
class ElasticConstants(Result):
    """Elastic tensor and what follows from it; moduli in GPa.

    Attributes:
        atoms: the structure without strain, in its own axes.
        tensor: C [6, 6], GPa, symmetric, Voigt order xx yy zz yz xz xy, in the crystal's standard axes (IEEE 176-1987).
        axes: in words which these are, for the crystal's system.
        rotation: [3, 3], whose rows are these axes in the axes of `atoms`.
        tensor_in_own_axes: the tensor in the axes of `atoms`.
        bulk_modulus, bulk_modulus_voigt, bulk_modulus_reuss: Hill's average and the bounds it lies between, GPa.
        shear_modulus, shear_modulus_voigt, shear_modulus_reuss: GPa.
        youngs_modulus: of a polycrystal, GPa.
        poisson_ratio: of a polycrystal.
        anisotropy: the universal index A^U = 5 G_V/G_R + B_V/B_R − 6; 0 for an isotropic crystal.
        eigenvalues: of `tensor` [6], GPa, ascending.
        stable: whether all are positive (Born, for a crystal without stress).
        debye_temperature: K; nan for an unstable crystal.
        stress: of the unstrained crystal [6], GPa, in the axes of `atoms`.
        asymmetry: largest |C_ij − C_ji| of the tensor as fitted, GPa: an estimate of its error.
        nonlinearity: largest difference of a stress from the straight line, GPa.
    """

    atoms: Atoms
    tensor: Floats
    axes: str
    rotation: Floats
    tensor_in_own_axes: Floats
    bulk_modulus: float
    bulk_modulus_voigt: float
    bulk_modulus_reuss: float
    shear_modulus: float
    shear_modulus_voigt: float
    shear_modulus_reuss: float
    youngs_modulus: float
    poisson_ratio: float
    anisotropy: float
    eigenvalues: Floats
    stable: bool
    debye_temperature: float
    stress: Floats
    asymmetry: float
    nonlinearity: float

    def _draw(self, figure: "Figure") -> None:
        axes = figure.subplots()
        largest = float(np.abs(self.tensor).max())
        image = axes.imshow(self.tensor, cmap="RdBu", vmin=-largest, vmax=largest)
        for (i, j), value in np.ndenumerate(self.tensor):
            axes.text(j, i, f"{value:.1f}", ha="center", va="center", color="black")
        axes.set(xticks=range(6), yticks=range(6), xticklabels=VOIGT, yticklabels=VOIGT)
        axes.set_title(f"B = {self.bulk_modulus:.1f}, G = {self.shear_modulus:.1f} GPa\n{self.axes}", fontsize="medium")
        figure.colorbar(image, ax=axes, label="C, GPa")


def elastic_constants(
    structure: Any,
    calc: Any,
    *,
    strain: float = 0.005,
    relax_cell: bool = True,
    relax_positions: bool = True,
    fmax: float = 1e-3,
) -> ElasticConstants:
    """Elastic tensor of a crystal.

    Args:
        structure: a crystal: ASE, pymatgen, phonopy, or a path.
        calc: any ASE calculator with stress; with `AndersoNN`, `dtype="float64", tol=1e-9` is advised.
        strain: the largest, at most 0.1.
        relax_cell: whether the crystal is relaxed first, positions and cell.
        relax_positions: whether the atoms of the strained crystals do.
        fmax: eV/Å of these relaxations.

    Raises:
        ValueError: for arguments without a meaning.
        RuntimeError: where a relaxation does not converge.
    """
    check_calculator(calc)
    check_positive(strain=strain, fmax=fmax)
    if strain > 0.1:
        raise ValueError(f"strain is {strain}; the stress is linear in small ones only, 0.005 is usual, 0.1 the most.")
    crystal = read_structure(structure, periodic=True)
    if relax_cell:
        (crystal,) = at_rest([crystal], calc, cell="free", fmax=fmax)
    from pymatgen.analysis.elasticity import Strain  # type: ignore[attr-defined]

    strains = [Strain.from_voigt(strain * part * row) for row in np.eye(6) for part in PARTS]
    frames = [_deformed(crystal, np.asarray(each.get_deformation_matrix("symmetric"))) for each in strains]
    if relax_positions:
        frames = at_rest(frames, calc, cell="fixed", fmax=fmax)
    voigt = [results["stress"] / units.GPa for results in evaluate_all([crystal, *frames], calc, stress=True)]
    return _from_stresses(crystal, strains, np.array(voigt[1:]), np.array(voigt[0]))


def _deformed(crystal: Atoms, deformation: Floats) -> Atoms:
    strained = crystal.copy()
    strained.set_cell(crystal.cell.array @ deformation.T, scale_atoms=True, apply_constraint=False)
    return strained  # type: ignore[no-any-return]


def _from_stresses(crystal: Atoms, strains: list[Any], stresses: Floats, initial: Floats) -> ElasticConstants:
    from pymatgen.analysis.elasticity import ElasticTensor, Stress  # type: ignore[attr-defined]
    from pymatgen.io.ase import AseAtomsAdaptor

    full = [Stress(voigt_6_to_full_3x3_stress(stress)) for stress in stresses]
    rest = Stress(voigt_6_to_full_3x3_stress(initial))
    fitted = np.asarray(ElasticTensor.from_independent_strains(strains, full, eq_stress=rest, tol=0.0).voigt)
    own = ElasticTensor.from_voigt((fitted + fitted.T) / 2)
    rotation, axes = standard_axes(crystal)
    turned = np.asarray(own.rotate(rotation).voigt)
    tensor = ElasticTensor.from_voigt((turned + turned.T) / 2)  # to the last bit
    line = np.array([strain.voigt for strain in strains]) @ fitted  # row: strained direction, as pymatgen fits
    offsets = (stresses - line).reshape(6, len(PARTS), 6)
    nonlinearity = np.abs(offsets - offsets.mean(1, keepdims=True)).max()
    eigenvalues = np.linalg.eigvalsh(np.asarray(tensor.voigt))
    # A strain across a vacuum costs nothing; with stress in the layer only the diagonal shows it.
    stiffness = np.abs(np.concatenate([eigenvalues, np.diag(np.asarray(own.voigt))]))
    if stiffness.min() <= STIFFNESS * stiffness.max():
        raise ValueError(f"{crystal.symbols} has no stiffness against some strains; are its atoms too far apart?")
    stable = bool(eigenvalues[0] > 0)
    debye = float("nan")
    if stable:
        debye = float(tensor.debye_temperature(AseAtomsAdaptor.get_structure(crystal)))
    return ElasticConstants(
        atoms=crystal,
        tensor=np.asarray(tensor.voigt),
        axes=axes,
        rotation=rotation,
        tensor_in_own_axes=np.asarray(own.voigt),
        bulk_modulus=float(tensor.k_vrh),
        bulk_modulus_voigt=float(tensor.k_voigt),
        bulk_modulus_reuss=float(tensor.k_reuss),
        shear_modulus=float(tensor.g_vrh),
        shear_modulus_voigt=float(tensor.g_voigt),
        shear_modulus_reuss=float(tensor.g_reuss),
        youngs_modulus=float(tensor.y_mod) / 1e9,
        poisson_ratio=float(tensor.homogeneous_poisson),
        anisotropy=float(tensor.universal_anisotropy),
        eigenvalues=eigenvalues,
        stable=stable,
        debye_temperature=debye,
        stress=initial,
        asymmetry=float(np.abs(fitted - fitted.T).max()),
        nonlinearity=float(nonlinearity),
    )
