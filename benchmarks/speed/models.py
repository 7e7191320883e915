"""Calculators of the potentials that `inference.py` measures, one function each, run in the model's environment.

Weights do not change the time of a call, so where a package would have to download them the model is built at its
published architecture with random ones, and its energies are scaled down so that the atoms of an MD run stay in place.
Nothing is imported before its function is called: the time of the imports is part of what is measured.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ELEMENTS = ("H", "C", "N", "O", "Al", "Si", "Ni", "Cu")
RANDOM_ENERGY_SCALE = 1e-3  # eV; forces of random weights would throw the atoms apart within a hundred steps


@dataclass(frozen=True)
class Model:
    """A model to measure; `build` makes its calculator, from the file that `prepare` wrote where there is one."""

    environment: str  # name of the virtual environment it needs; empty where this project's own will do
    distribution: str
    what: str
    build: Callable[..., Any]
    only: tuple[str, ...] = ()  # chemical elements it knows, where the systems measured have others
    prepare: Callable[[str], None] | None = None  # done once, before anything is timed


def andersonn() -> Any:
    from ase_andersonn import AndersoNN

    return AndersoNN("mlearn-pbe", compile=True)


def native() -> Any:
    from ase_andersonn import AndersoNN

    return AndersoNN("mlearn-pbe", compile="native")


def universal() -> Any:
    from ase_andersonn import AndersoNN

    return AndersoNN("universal", compile="native")


def nep() -> Any:
    import os

    from calorine.calculators import CPUNEP

    return CPUNEP(os.environ["ANDERSONN_NEP"])


def emt() -> Any:
    from ase.calculators.emt import EMT

    return EMT()


def mace() -> Any:
    # mace first: it is what lets its e3nn load its tables with a recent torch
    from mace.calculators import MACECalculator  # isort: skip
    from mace.modules import ScaleShiftMACE, interaction_classes  # isort: skip

    import numpy as np
    import torch
    from ase.data import atomic_numbers
    from e3nn import o3

    torch.manual_seed(0)
    interaction = interaction_classes["RealAgnosticResidualInteractionBlock"]
    model = ScaleShiftMACE(
        r_max=6.0,
        num_bessel=10,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=interaction,
        interaction_cls_first=interaction,
        num_interactions=2,
        num_elements=len(ELEMENTS),
        hidden_irreps=o3.Irreps("128x0e"),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(len(ELEMENTS)),
        avg_num_neighbors=60.0,
        atomic_numbers=sorted(atomic_numbers[symbol] for symbol in ELEMENTS),
        correlation=3,
        gate=torch.nn.functional.silu,
        atomic_inter_scale=RANDOM_ENERGY_SCALE,
        atomic_inter_shift=0.0,
    )
    return MACECalculator(models=model.float(), device="cpu", default_dtype="float32")


def chgnet() -> Any:
    from chgnet.model.dynamics import CHGNetCalculator
    from chgnet.model.model import CHGNet

    return CHGNetCalculator(CHGNet.load(use_device="cpu", verbose=False), use_device="cpu")


def sevennet() -> Any:
    from sevenn.calculator import SevenNetCalculator

    return SevenNetCalculator("7net-0", device="cpu")


def tensornet() -> Any:
    import torch
    from matgl.apps.pes import Potential
    from matgl.ext.ase import PESCalculator
    from matgl.models import TensorNet

    torch.manual_seed(0)
    model = TensorNet(element_types=ELEMENTS, units=64, nblocks=2, num_rbf=32, cutoff=5.0, is_intensive=False)
    potential = Potential(model=model, data_std=RANDOM_ENERGY_SCALE, calc_stresses=False)
    return PESCalculator(potential, stress_unit="eV/A3")


def nequip_model(**size: Any) -> Any:
    from nequip.model import NequIPGNNModel
    from nequip.utils.global_state import set_global_state

    set_global_state()
    return NequIPGNNModel(
        seed=0,
        model_dtype="float32",
        r_max=5.0,
        type_names=list(ELEMENTS),
        avg_num_neighbors=30.0,
        per_type_energy_scales=RANDOM_ENERGY_SCALE,
        per_type_energy_shifts=0.0,
        **size,
    ).eval()


def nequip() -> Any:
    from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
    from nequip.integrations.ase import NequIPCalculator

    transforms = [ChemicalSpeciesToAtomTypeMapper(list(ELEMENTS)), NeighborListTransform(r_max=5.0)]
    return NequIPCalculator(nequip_model(**NEQUIP_SMALL), device="cpu", transforms=transforms)


def compile_nequip(size: dict[str, Any], file: str) -> None:
    """Writes what `nequip-compile --mode aotinductor --target ase` writes, from a model in memory instead of a file."""
    import torch
    from ase.build import bulk
    from nequip.data import from_ase
    from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
    from nequip.scripts._compile_utils import COMPILE_TARGET_DICT
    from nequip.utils.aot import aot_export_model
    from nequip.utils.aoti_metadata import NEQUIP_AOTI_INPUTS_KEY, NEQUIP_AOTI_OUTPUTS_KEY, serialize_aoti_keys
    from nequip.utils.global_state import get_latest_global_state

    model = nequip_model(**size)
    target = COMPILE_TARGET_DICT["ase"]
    atoms = bulk("Si", "diamond", a=5.43, cubic=True) * 2
    atoms.rattle(0.05, seed=0)
    data = from_ase(atoms)
    for transform in (ChemicalSpeciesToAtomTypeMapper(list(ELEMENTS)), NeighborListTransform(r_max=5.0)):
        data = transform(data)
    names = {"graph": "num_frames", "node": "num_nodes", "edge": "num_edges"}
    dimensions = {key: torch.export.Dim(name, min=2, max=torch.inf) for key, name in names.items()}
    facts = {**model.metadata, **get_latest_global_state(only_metadata_related=True)}
    facts = {key: str(int(value)) if isinstance(value, bool) else str(value) for key, value in facts.items()}
    facts[NEQUIP_AOTI_INPUTS_KEY] = serialize_aoti_keys(target["input"])
    facts[NEQUIP_AOTI_OUTPUTS_KEY] = serialize_aoti_keys(target["output"])
    aot_export_model(
        model,
        "cpu",
        target["input"],
        target["output"],
        target["data_settings"](data),
        target["batch_map_settings"](dimensions),
        file,
        inductor_configs={"aot_inductor.metadata": facts},
    )


def nequip_compiled(file: str) -> Any:
    from nequip.integrations.ase import NequIPCalculator

    return NequIPCalculator.from_compiled_model(file, device="cpu")


NEQUIP_SMALL = {"num_layers": 3, "l_max": 1, "parity": False, "num_features": 32, "radial_mlp_width": 64}
NEQUIP_DEFAULT: dict[str, Any] = {}  # what its model builder takes when told nothing: 4 layers, l_max 1, parity

METALS_OF_EMT = ("Al", "Cu", "Ag", "Au", "Ni", "Pd", "Pt")
MODELS = {
    "andersonn": Model("", "ase-andersonn", "AndersoNN('mlearn-pbe', compile=True)", andersonn),
    "native": Model("", "ase-andersonn", "AndersoNN('mlearn-pbe', compile='native')", native),
    "universal": Model("", "ase-andersonn", "AndersoNN('universal', compile='native')", universal),
    "nep": Model("nep", "calorine", "NEP89, its file named by $ANDERSONN_NEP", nep),
    "emt": Model("", "ase", "ASE's EMT, float64, no network", emt, only=METALS_OF_EMT),
    "mace": Model("mace", "mace-torch", "MACE small (128x0e, 2 layers, r_max 6), random weights", mace),
    "chgnet": Model("chgnet", "chgnet", "CHGNet 0.3.0", chgnet),
    "sevenn": Model("sevenn", "sevenn", "SevenNet-0", sevennet),
    "matgl": Model("matgl", "matgl", "TensorNet (64 units, 2 blocks, cutoff 5), random weights", tensornet),
    "nequip": Model("nequip", "nequip", "NequIP small (3 layers, l_max 1, r_max 5), random weights, eager", nequip),
    "nequip-compiled": Model(
        "nequip",
        "nequip",
        "NequIP small, as above, AOTInductor",
        nequip_compiled,
        prepare=functools.partial(compile_nequip, NEQUIP_SMALL),
    ),
    "nequip-default-compiled": Model(
        "nequip",
        "nequip",
        "NequIP, its default size (4 layers, l_max 1, parity, r_max 5), random weights, AOTInductor",
        nequip_compiled,
        prepare=functools.partial(compile_nequip, NEQUIP_DEFAULT),
    ),
}
