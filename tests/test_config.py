"""Laws of configs: what is written is read back, and what is wrong is named."""

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ase_andersonn.config import from_dict, read_config, subclass_named, to_dict, write_config


@dataclass(frozen=True)
class Radial:
    n_basis: int = 8
    cutoff: float = 5.0


@dataclass(frozen=True)
class Model:
    elements: tuple[str, ...]
    n_channels: int = 64
    gamma: float = 0.7
    name: str = ""
    angular: bool = True
    kind: Literal["attention", "cartesian"] = "attention"
    seed: int | None = None
    window: int | float = 6
    box: tuple[float, float] = (0.0, 1.0)
    radial: Radial = field(default_factory=Radial)
    energies: dict[str, float] = field(default_factory=dict)
    extra: list[Radial] = field(default_factory=list)
    card: Path | None = None


class Wide(Radial):
    pass


class Wider(Wide):
    pass


floats = st.floats(allow_nan=False, allow_infinity=False)
radials = st.builds(Radial, n_basis=st.integers(), cutoff=floats)
# Whatever looks like another scalar in YAML has to come back as the text it was.
texts = st.one_of(
    st.sampled_from(
        ["1e-6", "No", "true", "null", "~", "1.5", "12", "off", "0x10", "1_000", "12:30", "2026-01-01", ".inf", ""]
    ),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"))),
)
models = st.builds(
    Model,
    elements=st.lists(st.sampled_from(["H", "C", "N", "O", "No", "Y"])).map(tuple),
    n_channels=st.integers(),
    gamma=floats,
    name=texts,
    angular=st.booleans(),
    kind=st.sampled_from(["attention", "cartesian"]),
    seed=st.none() | st.integers(),
    window=st.integers() | floats,
    box=st.tuples(floats, floats),
    radial=radials,
    energies=st.dictionaries(texts, floats, max_size=3),
    extra=st.lists(radials, max_size=2),
    card=st.none() | st.just(Path("a/b.json")),
)


@given(models)
def test_dict_round_trip(model: Model) -> None:
    assert from_dict(Model, to_dict(model)) == model


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
@given(model=models)
def test_file_round_trip(tmp_path_factory: pytest.TempPathFactory, suffix: str, model: Model) -> None:
    path = tmp_path_factory.getbasetemp() / f"config{suffix}"
    write_config(model, path)
    assert read_config(Model, path) == model


def test_defaults_fill_what_is_not_given() -> None:
    assert from_dict(Model, {"elements": ["Si"]}) == Model(elements=("Si",))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n_chanels": 32}, ValueError, "unknown key 'n_chanels'; did you mean 'n_channels'?"),
        ({"radial": {"cutof": 4.0}}, ValueError, "unknown key 'radial.cutof'; did you mean 'cutoff'?"),
        ({"radial": {"zzz": 4.0}}, ValueError, "unknown key 'radial.zzz'; allowed: n_basis, cutoff"),
        ({"n_channels": 64.0}, TypeError, "n_channels = 64.0 is of type float; expected int"),
        ({"n_channels": True}, TypeError, "n_channels = True is of type bool; expected int"),
        ({"gamma": "0.7"}, TypeError, "gamma = '0.7' is of type str; expected float"),
        ({"gamma": False}, TypeError, "gamma = False is of type bool; expected float"),
        ({"angular": 1}, TypeError, "angular = 1 is of type int; expected bool"),
        ({"kind": "atention"}, ValueError, "kind = 'atention' is not allowed; did you mean 'attention'?"),
        ({"seed": "one"}, TypeError, "seed = 'one' is of type str; expected int"),
        ({"box": [1.0]}, ValueError, "box has 1 entries; expected 2"),
        ({"elements": "Si"}, TypeError, "elements = 'Si' is of type str; expected a list, as [Si]"),
        ({"elements": ["Si", 14]}, TypeError, "elements[1] = 14 is of type int; expected str"),
        ({"energies": {"Si": "low"}}, TypeError, "energies.Si = 'low' is of type str; expected float"),
        ({"extra": [{"n_basis": None}]}, TypeError, "extra[0].n_basis = None is of type NoneType; expected int"),
        ({"radial": 5.0}, TypeError, "radial = 5.0 is of type float; expected Radial"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        from_dict(Model, {"elements": ["Si"], **change})
    assert str(caught.value) == message


def test_what_is_wrong_is_named_as_seen_from_outside() -> None:
    with pytest.raises(TypeError) as caught:
        from_dict(Model, {"elements": ["Si", 14]}, "model")
    assert str(caught.value) == "model.elements[1] = 14 is of type int; expected str"


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ValueError, match="missing key elements of Model"):
        from_dict(Model, {})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"cutoff": 1.0, "cutoff": 2.0}', "'cutoff' is given twice"),
        ("a.yaml", "cutoff: 1.0\ncutoff: 2.0\n", "'cutoff' is given twice"),
        ("a.yaml", "cutoff: [1.0\n", "not valid YAML"),
        ("a.json", "{", "a.json: "),
        ("a.toml", "", "use the suffix .json, .yaml or .yml"),
        ("a.yaml", "cutof: 1.0\n", "did you mean 'cutoff'"),
        ("a.yaml", "- 1\n", "config = [1] is of type list; expected Radial"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises((ValueError, TypeError)) as caught:
        read_config(Radial, path)
    assert message in str(caught.value)
    assert name in str(caught.value)


def test_yaml_scalars_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("elements: [N, O, No, Y]\ngamma: 1e-1\nname: off\n")
    assert read_config(Model, path) == Model(elements=("N", "O", "No", "Y"), gamma=0.1, name="off")


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("")
    assert read_config(Radial, path) == Radial()


def test_defining_the_class_is_its_registration() -> None:
    assert subclass_named(Radial, "Wider") is Wider
    assert subclass_named(Radial, "Radial") is Radial
    with pytest.raises(ValueError, match="no Radial named 'Widest'; did you mean 'Wide"):
        subclass_named(Radial, "Widest")


def test_abstract_classes_cannot_be_named() -> None:
    class Abstract(ABC):
        @abstractmethod
        def act(self) -> None: ...

    class Concrete(Abstract):
        def act(self) -> None: ...

    assert subclass_named(Abstract, "Concrete") is Concrete  # type: ignore[type-abstract]
    with pytest.raises(ValueError, match="no Abstract named 'Abstract'; allowed: Concrete"):
        subclass_named(Abstract, "Abstract")  # type: ignore[type-abstract]


@pytest.mark.parametrize("name", ["config.yaml", "config.json"])
@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, where: str
) -> None:
    path = tmp_path / name
    write_config(Model(("Cu",)), path)
    before = path.read_bytes()

    def fail(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, where, fail)
    with pytest.raises(KeyboardInterrupt):
        write_config(Model(("Ni",)), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [name]
