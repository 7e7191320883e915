"""Config dataclasses <-> dict, JSON and YAML.

A config is a plain dataclass; its fields with types and defaults are the schema. Reading checks every value against its
type, and an unknown key is an error with the most similar valid key. Keys that were renamed are listed in the
dataclass's `RENAMED`, and both names can be read. `subclass_named` finds a dataclass by name, without registration.
"""

import codecs
import json
import re
import types
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from difflib import get_close_matches
from inspect import isabstract
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from .atomic_write import atomic_write


class Config(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


C = TypeVar("C", bound=Config)
T = TypeVar("T")
TorchCompile = Literal["auto"] | bool
CompileMode = TorchCompile | Literal["native"]


def to_dict(config: Config) -> dict[str, Any]:
    """Config as nested dicts, lists and scalars of JSON."""
    return {f.name: _plain(getattr(config, f.name)) for f in fields(config)}


def from_dict(cls: type[C], data: Mapping[str, Any], where: str = "") -> C:
    """Config from a dict of ``to_dict``.

    Raises ValueError for an unknown or missing key and TypeError for a value of the wrong type; both name the key, with
    the prefix ``where`` for a nested config.
    """
    return _read_dataclass(cls, data, where)


def read_config(cls: type[C], path: str | Path) -> C:
    """Config from a ``.json``, ``.yaml`` or ``.yml`` file. A duplicate key is an error."""
    path = Path(path)
    text = _read_text(path)
    try:
        data = _loads_json(text) if _suffix(path) == ".json" else _loads_yaml(text)
        return from_dict(cls, {} if data is None else data)
    except (ValueError, TypeError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError  # not JSON's subclass, which needs more
        raise kind(f"{path}: {error}") from error


def _read_text(path: Path) -> str:
    """Text of a config file in UTF-8, or in UTF-16 with a byte order mark.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is a folder, or not text.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no config {path} (working directory {Path.cwd()}).")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the YAML or JSON file of a run.")
    data = path.read_bytes()
    try:
        return data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is no text in UTF-8 ({error.reason} at byte {error.start}); save it as such."
        ) from None


def write_config(config: Config, path: str | Path) -> None:
    """Write a config to a ``.json``, ``.yaml`` or ``.yml`` file atomically."""
    path, data = Path(path), to_dict(config)
    if _suffix(path) == ".json":
        text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    else:
        text = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    atomic_write(path, text.encode())


def subclass_named(base: type[T], name: str) -> type[T]:
    """Subclass of ``base`` (or ``base`` itself) with a name, among the classes of imported modules.

    Abstract classes are not considered.
    """
    found = {cls.__name__: cls for cls in (base, *_subclasses(base)) if not isabstract(cls)}
    if name not in found:
        raise ValueError(f"no {base.__name__} named {name!r}; {_nearest(name, found)}")
    return found[name]


def _subclasses(base: type[T]) -> Iterable[type[T]]:
    for cls in base.__subclasses__():
        yield cls
        yield from _subclasses(cls)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


# Reading: one function per kind of type; `where` is the dotted key for error messages.


def _read_dataclass(cls: type[C], data: Any, where: str) -> C:
    if not isinstance(data, Mapping):
        raise _wrong_type(data, cls, where)
    hints = get_type_hints(cls)
    known = {f.name: f for f in fields(cls) if f.init}
    earlier: Mapping[str, str] = getattr(cls, "RENAMED", {})
    for old, new in earlier.items():
        if old in data and new in data:
            raise ValueError(f"{_join(where, old)!r} and {_join(where, new)!r} are the same key; leave out the first.")
    data = {earlier.get(key, key): value for key, value in data.items()}
    for key in data:
        if key not in known:
            raise ValueError(f"unknown key {_join(where, key)!r}; {_nearest(str(key), known)}")
    missing = [_join(where, name) for name, f in known.items() if name not in data and _is_required(f)]
    if missing:
        raise ValueError(f"missing {'key' if len(missing) == 1 else 'keys'} {', '.join(missing)} of {cls.__name__}")
    return cls(**{key: _read(hints[key], value, _join(where, key)) for key, value in data.items()})


def _read(hint: Any, value: Any, where: str) -> Any:
    """``value`` converted to the type ``hint``: only lists to tuples and ints to floats."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if is_dataclass(hint) and isinstance(hint, type):
        return value if isinstance(value, hint) else _read_dataclass(hint, value, where)
    if origin in (Union, types.UnionType):
        return _read_union(hint, args, value, where)
    if origin is Literal:
        if any(value == arg and type(value) is type(arg) for arg in args):
            return value
        raise ValueError(f"{where} = {value!r} is not allowed; {_nearest(value, args)}")
    if origin in (tuple, list) and isinstance(value, (tuple, list)):
        return _read_sequence(origin, args, value, where)
    if origin is dict and isinstance(value, Mapping):
        return {_read(args[0], k, where): _read(args[1], v, _join(where, k)) for k, v in value.items()}
    return _read_scalar(hint, value, where)


def _read_scalar(hint: Any, value: Any, where: str) -> Any:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is float and is_number:
        return float(value)
    if hint is Path and isinstance(value, (str, Path)):
        return Path(value)
    if hint is int and isinstance(value, bool):
        raise _wrong_type(value, hint, where)
    if isinstance(hint, type) and isinstance(value, hint):
        return value
    raise _wrong_type(value, hint, where)


def _read_union(hint: Any, args: tuple[Any, ...], value: Any, where: str) -> Any:
    exact = [arg for arg in args if isinstance(arg, type) and type(value) is arg]
    errors: list[Exception] = []
    for arg in (*exact, *args):
        try:
            return _read(arg, value, where)
        except (TypeError, ValueError) as error:
            errors.append(error)
    # With one alternative to None, its own error is more specific than "expected A | None".
    wanted = [error for arg, error in zip(args, errors[len(exact) :], strict=True) if arg is not types.NoneType]
    raise wanted[0] if len(wanted) == 1 else _wrong_type(value, hint, where)


def _read_sequence(origin: Any, args: tuple[Any, ...], value: Any, where: str) -> Any:
    if origin is list or (len(args) == 2 and args[1] is Ellipsis):
        return origin(_read(args[0], entry, f"{where}[{i}]") for i, entry in enumerate(value))
    if len(value) != len(args):
        raise ValueError(f"{where} has {len(value)} entries; expected {len(args)}")
    return tuple(_read(arg, entry, f"{where}[{i}]") for i, (arg, entry) in enumerate(zip(args, value, strict=True)))


def _is_required(f: Field[Any]) -> bool:
    return f.default is MISSING and f.default_factory is MISSING


def _join(where: str, key: object) -> str:
    return f"{where}.{key}" if where else str(key)


def _nearest(given: object, known: Iterable[object]) -> str:
    names = [str(name) for name in known]
    near = get_close_matches(str(given), names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"allowed: {', '.join(names) or 'nothing'}"


def _wrong_type(value: object, hint: Any, where: str) -> TypeError:
    expected = hint.__name__ if isinstance(hint, type) and get_origin(hint) is None else str(hint)
    if get_origin(hint) in (tuple, list):
        expected = f"a list, as [{value}]" if isinstance(value, (str, int, float)) else f"a list ({expected})"
    return TypeError(f"{where or 'config'} = {value!r} is of type {type(value).__name__}; expected {expected}")


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (".json", ".yaml", ".yml"):
        raise ValueError(f"cannot tell the format of {str(path)!r}; use the suffix .json, .yaml or .yml")
    return suffix


def _loads_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_unique_keys)


def _unique_keys(pairs: list[tuple[Hashable, Any]]) -> dict[Hashable, Any]:
    data: dict[Hashable, Any] = {}
    for key, value in pairs:
        if key in data:
            raise ValueError(f"key {key!r} is given twice")
        data[key] = value
    return data


# YAML with the scalars of YAML 1.2 instead of PyYAML's 1.1: `1e-6` is a number (not a string), `No` is nobelium
# (not false).
_YAML_SCALARS = {
    ("tag:yaml.org,2002:bool", "tTfF"): r"^(?:true|True|TRUE|false|False|FALSE)$",
    ("tag:yaml.org,2002:float", "-+0123456789."): (
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
}


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        self.flatten_mapping(node)
        construct = self.construct_object
        return _unique_keys([(construct(key, deep=True), construct(value, deep=deep)) for key, value in node.value])


class _Dumper(yaml.SafeDumper):
    """Quotes exactly the strings that `_Loader` would not read as strings."""


for _cls in (_Loader, _Dumper):
    _cls.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float"))]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for (_tag, _first), _pattern in _YAML_SCALARS.items():
        _cls.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))


def _loads_yaml(text: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"not valid YAML: {error}") from error
