"""Make the packaged model of a run: weights, and a card with the errors on the test frames by kind of structure.

python package.py run/best.safetensors
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml
from ase.io import read

from ase_andersonn import AndersoNN
from ase_andersonn.models.checkpoint import load_model, save_model
from ase_andersonn.models.files import PRETRAINED
from ase_andersonn.training.dataset import FrameDataset

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

from universal import errors

HERE = Path(__file__).parent
OF_THE_RUN = ("smallest", "lone", "periodic", "training")


def card_of(path: str, train: str, test: str) -> dict[str, Any]:
    """The text of card.yaml, what the run says of itself, the pairs of elements it has seen, and its test errors."""
    model = load_model(path)
    found = errors(AndersoNN(path, compile=False), read(test, ":"))
    rows = {
        kind: {
            "energy_mae_meV_per_atom": round(row["energy"], 1),
            "forces_mae_meV_per_A": round(row["forces"], 1),
            "test_frames": row["frames"],
        }
        for kind, row in found.items()
    }
    return {
        **yaml.safe_load((HERE / "card.yaml").read_text(encoding="utf-8")),
        "parameters": sum(p.numel() for p in model.parameters()),
        **{name: model.card[name] for name in OF_THE_RUN if name in model.card},
        "pairs": sorted(FrameDataset(read(train, ":"), model.edge_cutoff).closest()),
        "test": rows,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="best.safetensors of the run")
    parser.add_argument("--train", default="frames/train.extxyz")
    parser.add_argument("--test", default="frames/test.extxyz")
    args = parser.parse_args()
    card = card_of(args.model, args.train, args.test)
    save_model(load_model(args.model), PRETRAINED / f"{card['name']}.safetensors", card)
    for kind, row in card["test"].items():
        print(kind, row)
