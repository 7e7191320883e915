"""What of its training is familiar to a packaged model: densities, environments, pairs of elements.

No weight is changed. Pairs repel from the shortest distances of training on, to which
`tests/potentials/test_short_range.py` holds packaged models. `train` does the same by itself for other models.

    python ../familiar.py mlearn-pbe "frames/*_train.extxyz"
"""

import argparse
from dataclasses import replace

import torch

from ase_andersonn.checkpoints.checkpoint import load_model, save_model
from ase_andersonn.potentials.base import MIN_DISTANCE_SHARE
from ase_andersonn.potentials.deq_attention import DEQAttention
from ase_andersonn.potentials.extrapolation import measure_environments, measure_max_density
from ase_andersonn.pretrained.catalog import PRETRAINED
from ase_andersonn.training import read_frames
from ase_andersonn.training.data.dataset import FrameDataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name of a packaged model")
    parser.add_argument("frames", nargs="+", help="files or patterns of its training frames")
    parser.add_argument(
        "--shortest",
        nargs=3,
        action="append",
        metavar=("A", "B", "R"),
        default=[],
        help="atomic numbers of a pair and a distance in Å: only farther apart was it learnt well",
    )
    parser.add_argument("--sample", action="store_true", help="frames are few: what one element has serves for all")
    args = parser.parse_args()
    model = load_model(args.model)
    assert isinstance(model, DEQAttention)
    data = FrameDataset(read_frames(args.frames), model.edge_cutoff)
    batches = data.sampler(batch_atoms=2000, seed=0).ordered()
    device = torch.device("cpu")
    graphs = [data.batch(indices, device=device, dtype=torch.float32).graph for indices in batches]
    measure_max_density(model, graphs)
    measure_environments(model, graphs)
    if args.sample:
        model.max_density.fill_(model.max_density.max())
        model.environment_max.fill_(model.environment_max.max())
    model.config = replace(
        model.config, contact_onset=1.0 / MIN_DISTANCE_SHARE
    )  # what is packaged is tested below these distances
    model.set_min_distance({(int(a), int(b)): MIN_DISTANCE_SHARE * float(r) for a, b, r in args.shortest})
    card = dict(model.card)
    if not args.sample:  # else the sets of elements that stood together say more
        card["pairs"] = sorted(data.min_distance())
    save_model(model, PRETRAINED / f"{args.model}.safetensors", card)
    print(f"{args.model}: densest {model.max_density.tolist()}, farthest {model.environment_max.tolist()}")


if __name__ == "__main__":
    main()
