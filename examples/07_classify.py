"""Screening: labels of a folder of structures, as a table and a picture: metal, semiconductor or insulator, how sure.

    python examples/07_classify.py                        # some known crystals, written for the purpose
    python examples/07_classify.py folder more/*.cif      # CIF, POSCAR, XYZ, ...: all that ASE reads

A few seconds. `ANDERSONN_EXAMPLE_QUICK=1` in the environment runs a shortened form.
"""

# %% Settings
import os
import sys
from pathlib import Path

from ase.build import bulk
from ase.io import write

from ase_andersonn import StructureClassifier
from ase_andersonn.classifier import Prediction
from ase_andersonn.cli.label_picture import write_picture
from ase_andersonn.cli.label_table import failures, named_structures, summary, write_answers

QUICK = os.environ.get("ANDERSONN_EXAMPLE_QUICK") == "1"
OUT = Path(__file__).parent / "out"
OUT.mkdir(exist_ok=True)

CONFIDENCE = 0.7
NAMED = 40  # largest number of structures listed on the screen

# name: structure, lattice constant [Å]. Eight metals, eight semiconductors, eight insulators by experiment; in PBE,
# which the labels come from, germanium has no gap and gallium arsenide hardly one.
CRYSTALS = {
    "Cu": ("fcc", 3.61), "Al": ("fcc", 4.05), "Ag": ("fcc", 4.09), "Ni": ("fcc", 3.52),
    "Fe": ("bcc", 2.87), "Na": ("bcc", 4.29), "W": ("bcc", 3.16), "NiAl": ("cesiumchloride", 2.89),
    "Si": ("diamond", 5.43), "Ge": ("diamond", 5.66), "GaAs": ("zincblende", 5.65), "InP": ("zincblende", 5.87),
    "AlSb": ("zincblende", 6.14), "ZnSe": ("zincblende", 5.67), "CdTe": ("zincblende", 6.48), "PbS": ("rocksalt", 5.94),
    "NaCl": ("rocksalt", 5.64), "MgO": ("rocksalt", 4.21), "LiF": ("rocksalt", 4.03), "KBr": ("rocksalt", 6.60),
    "CaO": ("rocksalt", 4.81), "CsCl": ("cesiumchloride", 4.12), "CaF2": ("fluorite", 5.46), "BaF2": ("fluorite", 6.20),
}  # fmt: skip


# %% The structures: those on the command line, or known crystals in three formats and a file that was cut short
def demo_folder() -> Path:
    """A folder with files of several formats."""
    folder = OUT / "07_structures"
    folder.mkdir(exist_ok=True)
    for k, (name, (structure, a)) in enumerate(CRYSTALS.items()):
        if not QUICK or k % 4 == 0:
            form = ("{}.cif", "{}.extxyz", "POSCAR_{}")[k % 3]
            write(folder / form.format(name), bulk(name, structure, a=a), format=("cif", "extxyz", "vasp")[k % 3])
    text = (folder / "Cu.cif").read_text(encoding="utf-8")
    (folder / "cut_short.cif").write_text(text[: len(text) // 3], encoding="utf-8")
    return folder


given = sys.argv[1:] or [str(demo_folder())]

# %% Labels: "uncertain" below the confidence; an unreadable file gives an error in its place
classifier = StructureClassifier(confidence=CONFIDENCE)
names: list[str] = []
answers = classifier.predict_many(named_structures(given, names))

# %% The table. From the command line: andersonn classify FOLDER --out labels.csv --plot labels.png --confidence 0.7
table = OUT / "07_classify.csv"
write_answers(table, names, answers, named_structures(given, []))
short = [Path(name).name for name in names]
width = max(map(len, short)) + 2
print(f"{'structure':<{width}}{'label':<16}" + "".join(f"{label:>15}" for label in classifier.labels.labels), end="")
print(f"{'OOD':>9}")
for name, answer in list(zip(short, answers, strict=True))[:NAMED]:
    if isinstance(answer, Prediction):
        numbers = "".join(f"{p:15.3f}" for p in answer.probabilities.values()) + f"{answer.out_of_distribution:9.2f}"
        print(f"{name:<{width}}{answer.name:<16}{numbers}" + ("  out of distribution" if answer.unusual else ""))
print(f"\n{summary(answers, classifier.labels)}\n")
for name, error in failures(names, answers):
    print(f"failed: {Path(name).name}: {error}")

# %% Picture: how many of each, where they lie between the three labels, and which answers to trust
picture = OUT / "07_classify.png"
write_picture(picture, names, answers, classifier.labels, CONFIDENCE)
print(f"table: {table}, picture: {picture}")
