"""Catalog of packaged models: paths, names and headers of model files."""

import difflib
import json
from collections.abc import Collection
from pathlib import Path

from safetensors import SafetensorError, safe_open

FORMATS = ("ase-andersonn-1", "ase-andersonn-2")
"""Formats of model files that can be read; files are written in the last one."""
DEFAULT_MODEL = "universal"
"""Name of the packaged model that is used by default."""
PRETRAINED = Path(__file__).parent
CLASSIFIERS = PRETRAINED / "classifiers"
"""Packaged classifiers; a folder is an ensemble."""
SUFFIX = ".safetensors"
CHECKPOINT = f"checkpoint{SUFFIX}"
"""File that identifies the folder of a training run."""


def packaged_models() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.stem for path in PRETRAINED.glob(f"*{SUFFIX}"))


def packaged_classifiers() -> list[str]:
    """Names of the classifiers that come with the package."""
    return sorted(path.stem for path in CLASSIFIERS.glob("*") if path.is_dir() or path.suffix == SUFFIX)


def models_of(numbers: Collection[int]) -> list[str]:
    """Names of the packaged models that support all of some elements.

    Args:
        numbers: atomic numbers.
    """
    known = {name: json.loads(read_header(PRETRAINED / f"{name}{SUFFIX}")["config"]) for name in packaged_models()}
    return [name for name, config in known.items() if set(numbers) <= set(config.get("elements") or ())]


def model_files(name_or_path: str | Path, folder: Path = PRETRAINED) -> list[Path]:
    """File of a model, or files of a folder of models.

    Args:
        name_or_path: path, or name in the folder of packaged models; an existing path takes precedence.
        folder: folder of the packaged models.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: for the folder of a training run.
    """
    name = str(name_or_path)
    if not name.strip() or "\0" in name:  # the path "" is the working folder
        raise FileNotFoundError(f"the model's name is {name!r}; give {_choice(folder)}.")
    try:
        return _found(Path(name_or_path), folder)
    except FileNotFoundError:
        raise
    except OSError as error:  # for instance for a name that is too long
        raise FileNotFoundError(
            f"there is no model {name[:80]!r}: {error.strerror}. Give {_choice(folder)}."
        ) from error


def _choice(folder: Path) -> str:
    """Allowed names of models, for error messages."""
    names = packaged_models() if folder == PRETRAINED else packaged_classifiers()
    return f"the path of a {SUFFIX} file, of a folder of them, or a packaged model's name ({', '.join(names)})"


def _found(path: Path, folder: Path) -> list[Path]:
    candidates = [path]
    if path.name and str(path) == path.name and path.name != CLASSIFIERS.name:
        candidates += [folder / f"{path}{SUFFIX}", folder / path]
    for candidate in candidates:
        if candidate.is_file():
            return [candidate]
        if (candidate / CHECKPOINT).exists():
            raise ValueError(
                f"{candidate} is a training run; give one of its models, such as {candidate}/best{SUFFIX}."
            )
        if members := sorted(candidate.glob(f"*{SUFFIX}")):
            return members
    if path.is_dir():
        inside = ", ".join(sorted({str(file.parent) for file in path.glob(f"*/*{SUFFIX}")}))
        raise FileNotFoundError(
            f"the folder {path} holds no {SUFFIX} files{inside and f'; of its folders these do: {inside}'}."
        )
    if str(path) in packaged_classifiers() and folder == PRETRAINED:
        raise FileNotFoundError(f"{path} is a classifier, not a potential; use StructureClassifier({path.name!r}).")
    if str(path) in packaged_models() and folder == CLASSIFIERS:
        raise FileNotFoundError(f"{path} is a potential, not a classifier; use AndersoNN({path.name!r}).")
    names = packaged_models() if folder == PRETRAINED else packaged_classifiers()
    meant = difflib.get_close_matches(str(path).lower().removesuffix(SUFFIX).replace("_", "-"), names, 1)
    raise FileNotFoundError(
        f"there is no model {str(path)!r}: neither a file of that name nor a packaged model "
        f"({', '.join(names) or 'none is packaged'}), nor a folder that holds {SUFFIX} files."
        + "".join(f" Did you mean {name!r}?" for name in meant)
    )


def read_header(path: Path) -> dict[str, str]:
    """Read architecture, config and card of a model file, the latter two as JSON.

    Raises:
        ValueError: if the file is damaged or not a model of this package.
    """
    try:
        with safe_open(path, framework="np") as file:  # without importing torch
            header: dict[str, str] = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read as a model: {error}. Copy or create it again.") from error
    if header.get("format") not in FORMATS:
        raise ValueError(
            f"{path} is not a model of this package: its format is {header.get('format')!r}, not {FORMATS[-1]!r}."
        )
    return header
