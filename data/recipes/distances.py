"""Shortest distances of models made before `closest` was `NEARER` times what is learnt of a pair.

Of `mlearn-pbe` they were the shortest distances themselves, of pairs of elements never learnt the sums of the covalent
radii. No weight is changed, and no energy of structures whose distances are not below those of training.

    python distances.py mlearn-pbe --shortest
"""

import argparse

from ase_andersonn.models.base import NEARER
from ase_andersonn.models.checkpoint import load_model, save_model
from ase_andersonn.models.deq_attention import UNMET, DEQAttention
from ase_andersonn.models.files import PRETRAINED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name of a packaged model")
    parser.add_argument("--shortest", action="store_true", help="its distances are those of the training frames")
    args = parser.parse_args()
    model = load_model(args.model)
    assert isinstance(model, DEQAttention)
    unmet = model.closest == model.bond
    if args.shortest:
        model.closest.mul_(NEARER)
    model.closest[unmet] = NEARER * UNMET * model.bond[unmet]
    save_model(model, PRETRAINED / f"{args.model}.safetensors")
    print(f"{args.model}: {int(unmet.sum())} entries of pairs never learnt")


if __name__ == "__main__":
    main()
