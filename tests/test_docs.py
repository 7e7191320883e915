"""The documentation: code in it compiles and imports what exists, links lead somewhere, and the site builds."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
GENERATED = re.compile(r"(^|/)(tutorials/|benchmarks/[^/]*\.(md|png)$|models\.md$)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_import_what_exists(page: Path) -> None:
    for code in BLOCK.findall(page.read_text(encoding="utf-8")):
        for statement in ast.parse(code).body:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                exec(compile(ast.unparse(statement), str(page), "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if not link.startswith(("http://", "https://", "mailto:")) and not GENERATED.search(link):
            assert (page.parent / link).exists(), link


def test_commands_of_the_pages_exist() -> None:
    from ase_andersonn.cli import app

    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    used = {
        name for page in PAGES for name in re.findall(r"^andersonn ([a-z-]+)", page.read_text(encoding="utf-8"), re.M)
    }
    assert used
    assert used - known == set()


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed; see the extra [docs]")
def test_the_site_builds_and_is_found_by_search(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    index = json.loads((tmp_path / "search" / "search_index.json").read_text(encoding="utf-8"))
    text = " ".join(f"{entry['title']} {entry['text']}" for entry in index["docs"]).lower()
    for words in ("phonon", "lammps", "deep equilibrium", "fine-tuning", "receptive field", "out of distribution"):
        assert words in text, words
    examples = {path.stem for path in (ROOT / "examples").glob("[0-9]*.py")}
    assert examples == {path.name for path in (tmp_path / "tutorials").iterdir()}
