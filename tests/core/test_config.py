"""YAML files into models: what is refused, in which words, and that no file can keep the reader busy."""

import os
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Discriminator, Field, Tag

import perception.core.config as config_module
from perception.core import UsageError
from perception.core.config import load_config, parse_config, shipped_config


class Wheel(BaseModel, frozen=True, extra="forbid"):
    radius: float = Field(0.3, gt=0)


class Cart(BaseModel, frozen=True, extra="forbid"):
    kind: Literal["cart"] = "cart"
    wheels: dict[str, Wheel] = {}
    spare: list[Wheel] = []
    name: str = ""


class Sledge(BaseModel, frozen=True, extra="forbid"):
    kind: Literal["sledge"]
    runners: int = 2


def kind_of(value) -> str:
    return "sledge" if isinstance(value, dict) and value.get("kind") == "sledge" else "cart"


class Garage(BaseModel, frozen=True, extra="forbid"):
    vehicle: Annotated[Annotated[Cart, Tag("cart")] | Annotated[Sledge, Tag("sledge")], Discriminator(kind_of)] = Cart()
    places: int = Field(1, ge=1)


def load(tmp_path, text: str | bytes) -> Garage:
    path = tmp_path / "garage.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_config(path, Garage)


def test_a_file_becomes_a_model(tmp_path):
    garage = load(tmp_path, "vehicle:\n  wheels: {left: {radius: 0.4}, right: {}}\n  name: Bärbel\nplaces: 3\n")
    assert garage == Garage(vehicle=Cart(wheels={"left": Wheel(radius=0.4), "right": Wheel()}, name="Bärbel"), places=3)
    assert load(tmp_path, "vehicle: {kind: sledge}").vehicle == Sledge(kind="sledge")


def test_a_path_may_be_text(tmp_path):
    (tmp_path / "a.yaml").write_text("places: 2")
    assert load_config(str(tmp_path / "a.yaml"), Garage).places == 2  # type: ignore[arg-type]


def test_an_anchor_may_be_used_again(tmp_path):
    wheels = load(tmp_path, "vehicle: {wheels: {left: &a {radius: 0.5}, right: *a}}").vehicle.wheels
    assert wheels["left"] == wheels["right"] == Wheel(radius=0.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("plaices: 1", r"plaices: unknown key, expected one of vehicle, places; did you mean 'places'\?", id="unknown key"),
        pytest.param(
            "vehicle: {wheels: {left: {radios: 1}}}",
            r"vehicle.wheels.left.radios: unknown key, expected one of radius; did you mean 'radius'\?",
            id="in a dict",
        ),
        pytest.param("vehicle: {spare: [{}, {r: 1}]}", "vehicle.spare.1.r: unknown key, expected one of radius$", id="in a list"),
        pytest.param("vehicle: {kind: sledge, runer: 1}", r"vehicle.runer: .* kind, runners; did you mean 'runners'\?", id="in a union"),
        pytest.param("vehicle: {kind: sledge, runners: x}", "vehicle.runners: .* valid integer, .*, got 'x'", id="union, type"),
        pytest.param("places: 0", "places: Input should be greater than or equal to 1, got 0", id="too small"),
        pytest.param("1: 2", "1: Keys should be strings, got 1", id="a number as key"),
        pytest.param("- 1", "expected keys and values, got list", id="list"),
        pytest.param("", "expected keys and values, got NoneType", id="empty"),
        pytest.param("just text", "expected keys and values, got str", id="text"),
        pytest.param("a: [1", "invalid YAML: .*line 1", id="not closed"),
        pytest.param("a: b: c", "invalid YAML: mapping values are not allowed here", id="two colons"),
        pytest.param("places: 1\nplaces: 2", "invalid YAML: the key 'places' comes twice .*line 2", id="twice"),
        pytest.param("vehicle: {wheels: {a: {radius: 1, radius: 2}}}", "invalid YAML: the key 'radius' comes twice", id="twice, deeper"),
        pytest.param("a: &a {x: 1}\nb: {<<: *a}", "invalid YAML: '<<' is not supported, write the values out", id="merge"),
        pytest.param("a: *b", "invalid YAML: found undefined alias 'b'", id="alias of nothing"),
        pytest.param("a: !!python/object/apply:os.system [echo]", "invalid YAML: could not determine a constructor", id="code"),
        pytest.param("a: 2001-02-31", "invalid YAML: day ", id="a day that is not"),
        pytest.param("a: !!int ''", "invalid YAML: ", id="no number"),
        pytest.param("a: !!bool perhaps", "invalid YAML: ", id="no truth"),
        pytest.param("a: !!timestamp never", "invalid YAML: ", id="no time"),
        pytest.param("a: " + "1" * 5000, "(invalid YAML|a: unknown key)", id="a number of 5000 digits"),
        pytest.param("? [1]\n: 2", "invalid YAML: .*unhashable key", id="a list as key"),
        pytest.param("[" * 5000, "invalid YAML: nested too deeply", id="deep"),
        pytest.param(b"\xff\xfe\xfa", "invalid YAML: ", id="no text"),
        pytest.param(b"a: \x00", "invalid YAML: .*special characters are not allowed", id="zero byte"),
    ],
)
def test_a_broken_file_is_one_readable_line(tmp_path, text, message):
    with pytest.raises(UsageError, match=rf"garage\.yaml: {message}") as caught:
        load(tmp_path, text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(tmp_path))
    assert caught.value.exit_code == 2


def test_aliases_of_aliases_do_not_multiply(tmp_path):
    # Nine levels of nine would be 3.9e8 texts, were they written out: neither reading nor the message may do so.
    levels = ["l0: &l0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    levels += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 10)]
    with pytest.raises(UsageError) as caught:
        load(tmp_path, "\n".join([*levels, "vehicle: {wheels: *l9}", "places: *l9"]))
    assert len(str(caught.value)) < 3000
    assert "places: Input should be a valid integer, got [" in str(caught.value)


def test_merges_of_merges_do_not_multiply(tmp_path):
    levels = ["l0: &l0 {a: 1, b: 2}", *(f"l{i}: &l{i} {{<<: [{', '.join([f'*l{i - 1}'] * 9)}]}}" for i in range(1, 12))]
    with pytest.raises(UsageError, match="'<<' is not supported"):
        load(tmp_path, "\n".join(levels))


def test_a_value_that_holds_itself_can_be_shown(tmp_path):
    with pytest.raises(UsageError, match=r"places: Input should be a valid integer, got \["):
        load(tmp_path, "places: &a [*a]")


@pytest.mark.parametrize("kind", ["long", "endless"])
def test_a_huge_file_is_not_read(tmp_path, kind):
    path = tmp_path / "garage.yaml"
    if kind == "long":
        with path.open("wb") as file:
            file.truncate(1 << 40)  # a terabyte of holes
    elif os.path.exists("/dev/zero"):  # noqa: PTH110
        path.symlink_to("/dev/zero")
    else:
        pytest.skip("no /dev/zero here")
    with pytest.raises(UsageError, match=r"garage\.yaml: expected at most 64 KiB of YAML, got more"):
        load_config(path, Garage)


def test_the_largest_file_there_may_be_is_read(tmp_path):
    text = "places: 2\n#"
    assert load(tmp_path, text + "x" * (config_module._MAX_BYTES - len(text))).places == 2
    with pytest.raises(UsageError, match="expected at most"):
        load(tmp_path, text + "x" * (config_module._MAX_BYTES - len(text) + 1))


def test_a_file_that_cannot_be_read_says_why(tmp_path):
    with pytest.raises(UsageError, match=r"none\.yaml: expected a configuration file, got No such file or directory"):
        load_config(tmp_path / "none.yaml", Garage)
    with pytest.raises(UsageError, match="expected a configuration file, got Is a directory"):
        load_config(tmp_path, Garage)


def test_values_without_a_file_name_where_they_are_from():
    assert parse_config({"places": 4}, Garage, where="run.json").places == 4
    with pytest.raises(UsageError, match=r"^run\.json: places: Input should be greater than or equal to 1, got -4$"):
        parse_config({"places": -4}, Garage, where="run.json")


@pytest.mark.parametrize("name", ["tracker_greedy.yaml", "tracker_parity.yaml"])
def test_configurations_come_with_the_package(name, tmp_path, monkeypatch):
    assert shipped_config(name).is_file()  # of the checkout, or of the installed package
    (tmp_path / "perception" / "configs").mkdir(parents=True)
    installed = tmp_path / "perception" / "configs" / name
    installed.write_text("")
    monkeypatch.setattr(config_module, "__file__", str(tmp_path / "perception/core/config.py"))
    assert shipped_config(name) == installed
    installed.unlink()
    assert shipped_config(name) == tmp_path / "configs" / name
