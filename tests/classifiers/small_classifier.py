"""A small graph classifier with random weights."""

import numpy as np
import torch

from ase_andersonn.classifier import Prediction
from ase_andersonn.classifiers.graph_classifier import GraphClassifier, GraphClassifierConfig

SMALL = {"cutoff": 4.0, "n_radial": 4, "n_channels": 8, "n_element": 8, "n_edge": 8, "n_token": 8, "n_heads": 2}
SMALLER = {"n_hidden": 16, "n_pooled": 8, "n_features": 8}


def make_model(seed: int = 0) -> GraphClassifier:
    torch.manual_seed(seed)
    return GraphClassifier(GraphClassifierConfig(**SMALL, **SMALLER)).eval()  # type: ignore[arg-type]


def same(a: Prediction, b: Prediction) -> bool:
    return a.name == b.name and np.allclose(list(a.probabilities.values()), list(b.probabilities.values()), atol=1e-5)
