"""Pages that mkdocs makes at build time: tutorials from the examples, model cards, and tables of the benchmarks."""

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = re.compile(r"(?<!!)\[([^\]]*)\]\((?:\.\./)+(?:benchmarks|data|ase_andersonn|examples|tests)[^)]*\)")
"""Links to files of the repository that are no pages."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {f"tutorials/{path.stem}.md": tutorial(path) for path in sorted((ROOT / "examples").glob("[0-9]*.py"))}
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.md")):
        pages[f"benchmarks/{path.name}"] = path.read_text(encoding="utf-8")
    pages["models.md"] = models()
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    for path in (ROOT / "benchmarks" / "results").glob("*.png"):
        files.append(File.generated(config, f"benchmarks/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Without links to files that are not part of the site."""
    return OUTSIDE.sub(r"\1", markdown)


def tutorial(path: Path) -> str:
    """The page of an example: its docstring as text, each `# %%` cell as a section."""
    source = path.read_text(encoding="utf-8")
    _, docstring, code = source.split('"""', 2)
    title, _, text = docstring.partition("\n\n")
    parts = [f"# {title.strip().rstrip('.')}", text.strip(), f"The whole script is `examples/{path.name}`."]
    for cell in re.split(r"^# %% ", code, flags=re.M)[1:]:
        heading, _, body = cell.partition("\n")
        words, lines = [], body.strip("\n").split("\n")
        while lines and lines[0].startswith("# "):
            words.append(lines.pop(0)[2:])
        parts += [f"## {heading.strip()}", " ".join(words), "```python\n" + "\n".join(lines).strip("\n") + "\n```"]
    return "\n\n".join(part for part in parts if part) + "\n"


def models() -> str:
    """Cards of all packaged models."""
    folder = ROOT / "ase_andersonn" / "pretrained"
    text = "# Packaged models\n\n`andersonn models` prints a table, `andersonn info NAME` all that a file holds."
    cards = sorted(folder.glob("*.json")) + sorted((folder / "classifiers").glob("*.json"))
    return "\n\n".join([text, *map(card, cards)]) + "\n"


def card(path: Path) -> str:
    """One model: summary, what it is of, data, limits and test errors."""
    known = json.loads(path.read_text(encoding="utf-8"))["card"]
    lines = [f"## {path.stem}", str(known.get("summary", "")), ""]
    lines += [f"- {key}: {known[key]}" for key in ("method", "parameters") if key in known]
    data = known.get("data") or {}
    lines += [f"- data, {key}: {data[key]}" for key in ("content", "source", "citation", "licence") if key in data]
    if known.get("limits"):
        lines += ["", "Limits:", "", *(f"- {limit}" for limit in known["limits"])]
    rows = {name: row for name, row in (known.get("test") or {}).items() if isinstance(row, dict)}
    columns = list(dict.fromkeys(key for row in rows.values() for key in row))
    if columns:
        lines += ["", "Errors on test structures:", "", "| |" + "|".join(c.replace("_", " ") for c in columns) + "|"]
        lines.append("|---|" + "---:|" * len(columns))
        lines += [f"|{name}|" + "|".join(str(row.get(c, "")) for c in columns) + "|" for name, row in rows.items()]
    return "\n".join(lines)
