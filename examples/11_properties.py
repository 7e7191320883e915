"""Silicon from relaxation to thermal expansion: each property a function of a structure and a calculator.

Less than a minute on two cores. `ANDERSONN_EXAMPLE_QUICK=1` in the environment runs a shortened form. The calculator
may be any of ASE's; where it evaluates lists, as AndersoNN does, strains and displacements are computed together.
"""

# %% Settings
import os
from pathlib import Path

from ase.build import bulk

from ase_andersonn import AndersoNN
from ase_andersonn.workflows.elastic import elastic_constants
from ase_andersonn.workflows.eos import equation_of_state
from ase_andersonn.workflows.phonons import phonons
from ase_andersonn.workflows.quasi_harmonic import quasi_harmonic
from ase_andersonn.workflows.relax import relax
from ase_andersonn.workflows.vacancies import vacancy_formation

QUICK = os.environ.get("ANDERSONN_EXAMPLE_QUICK") == "1"
OUT = Path(__file__).parent / "out" / "11_properties"
OUT.mkdir(parents=True, exist_ok=True)
LENGTH = 6.0 if QUICK else 12.0  # Å between a supercell's opposite faces

# Derivatives of forces need tighter fixed points than molecular dynamics does.
calculator = AndersoNN("mlearn-pbe", dtype="float64", tol=1e-9, compile=False)

# %% The relaxed crystal, from a wrong lattice constant
silicon = relax(bulk("Si", a=5.2), calculator, fmax=1e-3)
print(f"{silicon.steps} steps to {silicon.fmax:.1e} eV/Å; lattice constant {(4 * silicon.volume) ** (1 / 3):.3f} Å")

# %% Energy against volume, and the elastic tensor
curve = equation_of_state(silicon.atoms, calculator)
tensor = elastic_constants(silicon.atoms, calculator)
print(f"bulk modulus {curve.bulk_modulus:.1f} GPa from energies, {tensor.bulk_modulus:.1f} GPa from stresses")
print(f"C11, C12, C44: {tensor.tensor[0, 0]:.0f}, {tensor.tensor[0, 1]:.0f}, {tensor.tensor[3, 3]:.0f} GPa")
curve.plot(OUT / "eos.png")
tensor.plot(OUT / "elastic.png")

# %% A vacancy
(vacancy,) = vacancy_formation(silicon.atoms, calculator, min_length=LENGTH).vacancies
print(f"vacancy formation energy {vacancy.formation_energy:.2f} eV, {vacancy.unrelaxed:.2f} eV before atoms move")

# %% Phonons
waves = phonons(silicon.atoms, calculator, min_length=LENGTH)
print(f"{waves.n_displacements} displacement; highest frequency {waves.bands.frequencies[0].max():.1f} THz")
waves.plot(OUT / "phonons.png")

# %% Heat capacity and thermal expansion
warm = quasi_harmonic(
    silicon.atoms, calculator, max_temperature=600.0, volumes=(0.96, 1.04), points=5 if QUICK else 9, min_length=LENGTH
)
print(f"thermal expansion at 300 K {warm.thermal_expansion[30] / 3 * 1e6:.1f}e-6/K along each axis")
print(f"heat capacity at 300 K {warm.heat_capacity[30] / len(warm.atoms):.1f} J/(K mol), constant pressure")
warm.plot(OUT / "thermal.png")
