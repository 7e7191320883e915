"""More of the structures for which a model is worst: candidates on its own walks, labelled by the teacher.

python extend.py label candidates --model universal.safetensors --teacher TensorNet-MatPES-PBE-v2025.1-PES \\
    --crystals mp20bt_train.npz wbm10k.npz --benchmarks elasticity.json.gz --seed 12
python extend.py pick more candidates --number 20000 --per-formula 6 --per-tag 0.25
python make.py join larger more/worst.npz older/train.npz older/valid.npz older/test.npz

`label` takes the options of `make.py label`. Walks go along the forces of the model, not of the teacher, so they end in
the holes that it has; structures for which it fails or gives huge forces are candidates too. With one model the teacher
labels all candidates; with several, a committee, the `--share` for which their forces differ most, which saves most of
the teacher's time. Candidates are of training formulas only: the test part stays.

The error of a structure is mean |F − F_teacher| / (mean |F_teacher| + 0.1 eV/Å), over components. `pick` takes the
structures of largest error, at most so many of a formula and such a share of a tag.
"""

import argparse
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from make import Plan, add_sources, describe, label_pieces, labelled, plan_of, read_all
from packed import formulas, pack, take, write
from sampling import Frame, sound, walks
from split import formula
from teacher import Label, Labeller, identity, load

FLOOR = 0.1
"""eV/Å, so that noise of forces near zero does not count as the largest error."""
UNKNOWN = 10.0
"""The error of a structure for which a model fails."""


def error_of(model: Label | None, teacher: Label) -> float:
    """mean |F − F_teacher| / (mean |F_teacher| + `FLOOR`)."""
    if model is None or not np.isfinite(model.forces).all():
        return UNKNOWN
    wrong = float(np.abs(model.forces - teacher.forces).mean())
    return min(wrong / (float(np.abs(teacher.forces).mean()) + FLOOR), UNKNOWN)


def disagreement(committee: Sequence[Label | None]) -> float:
    """The largest `error_of` one of the models against the first."""
    first, *others = committee
    return UNKNOWN if first is None else max(error_of(other, first) for other in others)


def worst(errors: Sequence[float], number: int, *quotas: tuple[Sequence[str], int]) -> np.ndarray:
    """Indices of the largest errors, largest first.

    Args:
        errors: of the structures.
        number: of indices at most.
        quotas: pairs of a word for each structure, and how many of the same word may be among them.
    """
    counts: list[Counter[str]] = [Counter() for _ in quotas]
    chosen: list[int] = []
    for k in np.argsort(-np.asarray(errors), kind="stable"):
        if len(chosen) == number:
            break
        own = [words[k] for words, _ in quotas]
        if all(count[word] < most for count, word, (_, most) in zip(counts, own, quotas, strict=True)):
            chosen.append(int(k))
            for count, word in zip(counts, own, strict=True):
                count[word] += 1
    return np.array(chosen, dtype=int)


def candidates(plan: Plan, models: Sequence[Labeller], piece: int, share: float, per_formula: int) -> list[Frame]:
    """The structures on the first model's walks; of several models those for which they differ most."""
    frames = walks(plan.walkers(piece), models[0], plan.species, all_kept=True)
    if len(models) == 1 or not frames:
        return frames
    atoms = [frame.atoms for frame in frames]
    others = zip(*[model(atoms) for model in models[1:]], strict=True)
    doubts = [disagreement([frame.label, *labels]) for frame, labels in zip(frames, others, strict=True)]
    names = [formula(one) for one in atoms]
    return [frames[k] for k in worst(doubts, max(1, round(share * len(frames))), (names, per_formula))]


def judged(frames: Sequence[Frame], teacher: Labeller, batch: int = 25) -> list[tuple[Frame, float]]:
    """The frames that the teacher has sound labels for, with these instead of the model's, and the model's error."""
    found = []
    for begin in range(0, len(frames), batch):
        some = frames[begin : begin + batch]
        for frame, right in zip(some, teacher([one.atoms for one in some]), strict=True):
            if sound(right, len(frame.atoms)):
                found.append((frame._replace(label=right), error_of(frame.label, right)))
    return found


def label(args: argparse.Namespace) -> None:
    plan = plan_of(args, parts=("train",))
    teacher, models = load(args.teacher), [load(name) for name in args.model]

    def make(piece: int, path: Path) -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that structures are far from the training data is the point
            pairs = judged(candidates(plan, models, piece, args.share, args.per_formula), teacher)
        write(path, pack([labelled(frame, error=error) for frame, error in pairs]))
        return f"{len(pairs)} candidates, error {np.mean([error for _, error in pairs]) if pairs else 0.0:.2f}"

    names = [identity(name) for name in args.model]
    label_pieces(args, plan, make, models=names, share=args.share, per_formula=args.per_formula)


def pick(args: argparse.Namespace) -> None:
    """Write the structures of largest error.

    Raises:
        ValueError: for pieces without errors.
    """
    packed = read_all(args.pieces)
    if "error" not in packed:
        raise ValueError("these pieces hold no errors; they have to come from `extend.py label`.")
    of_tag = (packed["tag"].tolist(), max(1, round(args.per_tag * args.number)))
    chosen = worst(packed["error"], args.number, (formulas(packed), args.per_formula), of_tag)
    found = take(packed, chosen)
    args.folder.mkdir(parents=True, exist_ok=True)
    write(args.folder / "worst.npz", found)
    mean = float(np.mean(packed["error"])) if len(packed["error"]) else 0.0
    mean_found = float(np.mean(found["error"])) if len(chosen) else 0.0
    print(f"error {mean_found:.2f}, of all candidates {mean:.2f}; {describe(found)}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Label candidates, or pick the worst of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    of_label = commands.add_parser("label", help="candidates, the teacher's labels, the model's errors")
    add_sources(of_label)
    of_label.add_argument("--model", nargs="+", required=True, help="one, or a committee; named as a teacher is")
    of_label.add_argument("--share", type=float, default=0.2, help="of a committee's candidates to be labelled (0.2)")
    of_label.add_argument("--per-formula", type=int, default=6, help="of those at most, in a piece (6)")
    of_label.set_defaults(run=label)
    of_pick = commands.add_parser("pick", help="the worst of the candidates")
    of_pick.add_argument("folder", type=Path, help="for worst.npz")
    of_pick.add_argument("pieces", nargs="+", type=Path, help="folders of pieces")
    of_pick.add_argument("--number", type=int, default=20000, help="of structures (20000)")
    of_pick.add_argument("--per-formula", type=int, default=6, help="of them at most (6)")
    of_pick.add_argument("--per-tag", type=float, default=0.25, help="share of one tag at most (0.25)")
    of_pick.set_defaults(run=pick)
    args = parser.parse_args(arguments)
    try:
        args.run(args)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
