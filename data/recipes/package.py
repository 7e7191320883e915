"""Make the packaged model of a finished run: weights, and a card with the test errors beside the published ones.

From the folder of a recipe, whose `card.yaml` says the rest:

python ../package.py run/best.safetensors "frames/*_test.extxyz"
"""

import argparse
from pathlib import Path
from typing import Any

import yaml
from ase.units import GPa

from ase_andersonn.checkpoints.checkpoint import load_model, save_model
from ase_andersonn.pretrained.catalog import PRETRAINED
from ase_andersonn.training import evaluate_dataset, read_frames
from ase_andersonn.training.metrics import ErrorRow

OF_THE_RUN = ("pairs", "min_atoms", "isolated", "periodic", "odd_electrons", "training", "validation")
"""What the card takes over from that of the run."""


def standardized(row: ErrorRow) -> dict[str, float]:
    """Errors in the units of the published tables."""
    errors = {
        "energy_mae_meV_per_atom": 1e3 * row.energy.mae,
        "energy_rmse_meV_per_atom": 1e3 * row.energy.rmse,
        "forces_mae_meV_per_A": 1e3 * row.forces.mae,
        "forces_rmse_meV_per_A": 1e3 * row.forces.rmse,
        "test_frames": row.energy.count,
    }
    if row.stress.count:
        errors["stress_mae_GPa"] = row.stress.mae / GPa
    return {name: round(value, 4) for name, value in errors.items()}


def make_card(model_path: str, test: list[str]) -> dict[str, Any]:
    """The model card: the text of `card.yaml`, the training, the errors on the test frames."""
    model = load_model(model_path)
    report = evaluate_dataset(model, read_frames(test))
    return {
        **yaml.safe_load(Path("card.yaml").read_text(encoding="utf-8")),
        "parameters": sum(p.numel() for p in model.parameters()),
        **{name: model.card[name] for name in OF_THE_RUN if name in model.card},
        "test": {symbol: standardized(row) for symbol, row in report.errors.items() if symbol != "all"},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="best.safetensors of the run, or last.safetensors")
    parser.add_argument("test", nargs="+", help="files or patterns of test frames")
    parser.add_argument("--output", type=Path, help="model file; the packaged one of the card's name if not given")
    args = parser.parse_args()
    card = make_card(args.model, args.test)
    save_model(load_model(args.model), args.output or PRETRAINED / f"{card['name']}.safetensors", card)
    for symbol, errors in card["test"].items():
        print(symbol, errors, {who: figures.get(symbol) for who, figures in card["published"].items()})
