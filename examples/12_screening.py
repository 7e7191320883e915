"""Screening of a folder of structures: relaxed, with bulk moduli, filtered and ranked, in a table and a report.

Less than half a minute on two cores. `ANDERSONN_EXAMPLE_QUICK=1` in the environment runs a shortened form.
Command line: andersonn screen structures/ --properties bulk_modulus --filter "bulk_modulus > 50" --out screening
"""

# %% Settings
import os
from pathlib import Path

from ase.build import bulk

from ase_andersonn import AndersoNN
from ase_andersonn.workflows.screen import screen

QUICK = os.environ.get("ANDERSONN_EXAMPLE_QUICK") == "1"
OUT = Path(__file__).parent / "out" / "12_screening"
FOLDER = OUT / "structures"
FOLDER.mkdir(parents=True, exist_ok=True)

# %% A folder of structures, with a duplicate and a broken file among them
for symbol in ("Cu", "Ni", "Si") if QUICK else ("Cu", "Ni", "Si", "Mo", "Li"):
    bulk(symbol).write(FOLDER / f"{symbol}.cif")
bulk("Cu", cubic=True).write(FOLDER / "Cu_conventional.cif")
(FOLDER / "broken.cif").write_text("data_broken\n")

# %% The screening: an interrupted one resumes, and the results do not depend on what was computed before
found = screen(
    sorted(FOLDER.glob("*.cif")),
    AndersoNN(warm_start=False, compile=False),
    OUT,
    properties=["bulk_modulus"],
    filters=["bulk_modulus > 50"],
    sort="bulk_modulus",
    descending=True,
    resume=True,
    progress=True,
)

# %% The ranking, and the rows that were left out
for row in found.selected:
    print(f"{row['rank']}. {row['formula']}: {row['bulk_modulus']:.0f} GPa, {row['space_group']}")
for row in found.rows[len(found.selected) :]:
    print(f"{Path(str(row['name'])).name}: {row['status']} {row['duplicate_of'] or row['error'] or ''}")
print(f"table: {OUT / 'table.csv'}, report: {OUT / 'report.html'}")
