"""Package the classifier of a finished run: its weights, and its card with the text of the recipe's card.

From the folder of a recipe:

python ../package_classifier.py run/model.safetensors
python ../package_classifier.py run/ensemble/*.safetensors    # an ensemble, under the name with -ensemble
python ../package_classifier.py run-3/model.safetensors --card card-3.yaml
"""

import argparse
from pathlib import Path

import yaml

from ase_andersonn.checkpoints.checkpoint import load_classifier, save_model
from ase_andersonn.pretrained.catalog import CLASSIFIERS

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, help="model.safetensors of the run, or those of an ensemble")
    parser.add_argument("--card", type=Path, help="entries that replace those of card.yaml, as for another label set")
    options = parser.parse_args()
    models = options.models
    cards = [Path("card.yaml"), *filter(None, [options.card])]
    text = {key: value for card in cards for key, value in yaml.safe_load(card.read_text(encoding="utf-8")).items()}
    folder = CLASSIFIERS / f"{text['name']}-ensemble" if len(models) > 1 else CLASSIFIERS
    folder.mkdir(exist_ok=True)
    for path in models:
        model = load_classifier(path)
        parameters = sum(p.numel() for p in model.parameters())
        name = path.name if len(models) > 1 else f"{text['name']}.safetensors"
        save_model(model, folder / name, {**text, "parameters": parameters, **model.card})
