"""Package the classifier of a finished run: its weights, and its card with the text of the recipe's `card.yaml`.

From the folder of a recipe:

python ../package_classifier.py run/model.safetensors
"""

import argparse
from pathlib import Path

import yaml

from ase_andersonn.models.checkpoint import CLASSIFIERS, load_classifier, save_model

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="model.safetensors of the run")
    model = load_classifier(parser.parse_args().model)
    text = yaml.safe_load(Path("card.yaml").read_text(encoding="utf-8"))
    parameters = sum(p.numel() for p in model.parameters())
    CLASSIFIERS.mkdir(exist_ok=True)
    save_model(model, CLASSIFIERS / f"{text['name']}.safetensors", {**text, "parameters": parameters, **model.card})
