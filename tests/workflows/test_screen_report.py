"""The report of a screening: whole, valid, on its own, and working in a browser."""

import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from ase_andersonn.workflows.screen import screen, svg

HOSTILE = '</script><script>document.title="taken"</script><img src=x onerror=alert(1)>"\'&amp;{{ 7*7 }}.cif'
VOID = {"meta", "input", "br", "img", "link", "hr"}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    given: list[Any] = [(f"{symbol}-{k}", bulk(symbol)) for k, symbol in enumerate(("Cu", "Al", "Pd", "Ag", "Au"))]
    given += [("again", bulk("Cu", cubic=True)), (HOSTILE, ValueError(HOSTILE))]
    given += [(HOSTILE[:60], bulk("Ni", "bcc", a=2.8)), ("unknown", bulk("W"))]
    return screen(
        given,
        EMT(),
        tmp_path_factory.mktemp("report") / "out",
        properties=["bulk_modulus", "phonons"],
        filters=["bulk_modulus > 60"],
        sort="bulk_modulus",
        descending=True,
        min_length=4.0,
        fmax=0.05,
    )


class Page(HTMLParser):
    """Rows of the table, identities, and whether all that is opened is closed in its place."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        assert len(values) == len(attrs)
        self.tags.append(tag)
        self.ids += [str(values["id"])] if "id" in values else []
        self.links += [str(values[name]) for name in ("href", "src") if name in values]
        if tag == "tr" and "data-row" in values:
            self.rows.append([])
        if tag == "td" and self.rows and len(self.open) > 1 and self.open[-2] == "tbody":
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "tbody" in self.open and "td" in self.open:
            self.rows[-1][-1] += data


def test_it_is_valid_and_has_every_row(found: Any) -> None:
    page = Page((found.folder / "report.html").read_text(encoding="utf-8"))
    names = [column.name for column in found.columns]
    assert len(page.rows) == len(found.rows)
    for cells, row in zip(page.rows, found.rows, strict=True):
        assert cells[names.index("name")] == row["name"]
        assert cells[names.index("status")] == row["status"]
        if row["bulk_modulus"] is not None:
            assert float(cells[names.index("bulk_modulus")]) == row["bulk_modulus"]
    assert len(page.ids) == len(set(page.ids))
    assert page.links
    assert {link[1:] for link in page.links} <= set(page.ids)


def test_it_needs_no_network_and_names_run_nothing(found: Any) -> None:
    text = (found.folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|\bfetch\(|XMLHttp", text)
    page = Page(text)
    assert page.tags.count("script") == 1
    assert {"img", "link", "iframe", "object"}.isdisjoint(page.tags)
    assert "{{ 7*7 }}" in text


def test_sections_hold_the_curves(found: Any) -> None:
    text = (found.folder / "report.html").read_text(encoding="utf-8")
    computed = sum(atoms is not None for atoms in found.structures)
    assert text.count("<details") == computed
    assert text.count("Equation of state") == sum(row["bulk_modulus"] is not None for row in found.rows)
    assert text.count("Phonons</figcaption>") == sum(row["lowest_frequency"] is not None for row in found.rows)
    assert len(text) < 60_000 * computed


def test_five_hundred_structures_are_a_few_megabytes(found: Any) -> None:
    """A section with 40 atoms, an equation of state and 120 branches is below 30 kB, so that 500 are below 15 MB."""
    atoms = bulk("Cu", cubic=True) * (5, 2, 1)
    frequencies = np.random.default_rng(0).uniform(0, 9, (3, 120)).round(3).tolist()
    segments = [{"labels": ("Γ", "X"), "distances": [k, k + 0.5, k + 1], "frequencies": frequencies} for k in range(4)]
    assert len(svg.cell(atoms)) + len(svg.bands(segments)) < 30_000


def test_marks_of_axes_are_round() -> None:
    assert svg.ticks(0.0, 10.0) == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    for low, high in ((-1e-7, 3e-7), (99.9, 100.1), (-5e3, 2e4)):
        found = svg.ticks(low, high)
        assert 3 <= len(found) <= 11
        assert all(low - 1e-12 * abs(low) <= value <= high * (1 + 1e-12) for value in found)


def test_curves_of_one_point_and_of_one_value_are_drawn() -> None:
    for series in (svg.Series([1.0], [2.0], "dots"), svg.Series([0.0, 1.0], [3.0, 3.0])):
        assert "nan" not in svg.curve([series], "x", "y")


SCRIPT = """<script>
const at = name => columns.indexOf(name);
const places = () => [...get("table").tBodies[0].rows].map(row => row.dataset.row).join(" ");
const click = name => heads[at(name)].firstChild.click();
const seen = {title: document.title, start: places()};
click("bulk_modulus"); seen.up = places();
click("bulk_modulus"); seen.down = places();
click("name"); seen.name = places();
get("only").click(); seen.only = [...get("table").tBodies[0].rows].filter(row => !row.hidden).length;
get("only").click();
get("search").value = "ag-"; filter();
seen.search = [...get("table").tBodies[0].rows].filter(row => !row.hidden).length;
seen.points = document.querySelectorAll("#scatter circle").length;
get("y").selectedIndex = 0; scatter(); seen.others = document.querySelectorAll("#scatter circle").length;
document.querySelector("#scatter circle").dispatchEvent(new MouseEvent("click", {bubbles: true}));
seen.opened = document.querySelectorAll("details[open]").length;
const right = element => element.getBoundingClientRect().right;
seen.clipped = heads.filter(head => right(head.firstChild) > right(head) + 0.5).map(head => head.textContent);
seen.errors = window.errors;
document.body.innerHTML = "<pre id=seen></pre>";
get("seen").textContent = JSON.stringify(seen);
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium to open the report with")
def test_it_works_in_a_browser(found: Any, tmp_path: Path) -> None:
    text = (found.folder / "report.html").read_text(encoding="utf-8")
    catcher = "<script>window.errors = []; window.onerror = text => { window.errors.push(text); };</script>"
    page = tmp_path / "page.html"
    text = text.replace("<head>", "<head>" + catcher).replace("</body>", SCRIPT + "</body>")
    page.write_text(text, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    options += ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run([str(CHROMIUM), *options, page.as_uri()], capture_output=True, text=True, timeout=120)
    match = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert match is not None, done.stderr[-2000:]
    seen = json.loads(unescape(match[1]))
    assert seen["errors"] == []
    assert seen["clipped"] == []  # names and units of columns are within their cells
    assert seen["title"] == f"Screening of {len(found.rows)} structures"
    rows = found.rows
    known = [k for k, row in enumerate(rows) if row["bulk_modulus"] is not None]
    missing = [k for k in range(len(rows)) if k not in known]
    up = sorted(known, key=lambda k: (rows[k]["bulk_modulus"], k))
    down = sorted(known, key=lambda k: (-rows[k]["bulk_modulus"], k))
    assert seen["start"] == " ".join(map(str, range(len(rows))))
    assert seen["up"] == " ".join(map(str, [*up, *missing]))
    assert seen["down"] == " ".join(map(str, [*down, *missing]))
    assert seen["only"] == len(found.selected)
    assert seen["search"] == 1
    assert seen["points"] == len(known)
    assert seen["others"] >= len(known)
    assert seen["opened"] == 1
