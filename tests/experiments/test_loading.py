"""Mappings become frozen dataclasses, and every mistake is one line that names file, key and cure."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest
from pydantic import Field

from envs.errors import ConfigError
from envs.terms import CostConfig
from rlplatform.experiments.loading import plain, structure, to_yaml
from rlplatform.experiments.yaml_text import apply_overrides, dump_yaml, read_yaml


@dataclass(frozen=True, kw_only=True)
class Gru:
    kind: Literal["gru"] = "gru"
    hidden_size: int = 8


@dataclass(frozen=True, kw_only=True)
class Mlp:
    kind: Literal["mlp"] = "mlp"
    layers: tuple[int, ...] = (8,)


@dataclass(frozen=True, kw_only=True)
class Training:
    learning_rate: float | tuple[tuple[float, float], ...] = 1e-3
    num_epochs: int = 4
    shuffle: bool = False
    value_clip: float | None = None


@dataclass(frozen=True, kw_only=True)
class Part:
    size: int = 1


@dataclass(frozen=True, kw_only=True)
class Example:
    name: str
    model: Annotated[Gru | Mlp, Field(discriminator="kind")] = field(default_factory=Gru)
    training: Training = field(default_factory=Training)
    costs: CostConfig = field(default_factory=CostConfig)
    metric: Literal["sharpe", "cagr"] = "sharpe"
    day: datetime.date = datetime.date(2020, 1, 31)
    parameters: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, Part] = field(default_factory=dict)
    rows: tuple[Part, ...] = ()


def load(tmp_path, text, *overrides, cls=Example):
    path = tmp_path / "regime_ppo.yaml"
    path.write_text(text, encoding="utf-8")
    return structure(cls, apply_overrides(read_yaml(path), overrides), where=path.name)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        # The first two are STYLE.md's own examples, word for word.
        ("training.learing_rate=1e-4", "unknown key training.learing_rate. Did you mean learning_rate?"),
        (
            "costs.proportional_bps=0.0005",
            "costs.proportional_bps = 0.0005 looks like a fraction; it is in basis points. Did you mean 5?",
        ),
        ("nonsense=1", "unknown key nonsense. Known keys: name, model, training, costs, metric, day, parameters, parts, rows."),
        ("model={kind: gru, layers: [4]}", "unknown key model.layers. Known keys: kind, hidden_size."),
        ("training.num_epochs=four", "training.num_epochs = 'four'; expected a whole number."),
        ("training.num_epochs=1.5", "training.num_epochs = 1.5; expected a whole number."),
        ("training.learning_rate=fast", "training.learning_rate = 'fast'; expected a number or a list such as [a, b]."),
        ("training.learning_rate=[[0, 1], [5]]", "training.learning_rate.1.1 is missing. Give it a value."),
        ("training.shuffle=maybe", "training.shuffle = 'maybe'; expected true or false."),
        ("training.num_epochs=true", "training.num_epochs = true; expected another kind of value than true or false."),
        ("training=5", "training = 5; expected keys and values."),
        ("model.kind=lstm", "model.kind = 'lstm'; expected one of 'gru', 'mlp'."),
        ("model.kind=grue", "model.kind = 'grue'; expected one of 'gru', 'mlp'. Did you mean gru?"),
        ("model={hidden_size: 4}", "model lacks the key 'kind' that says which kind it is."),
        ("metric=sharp", "metric = 'sharp'; expected one of 'sharpe' or 'cagr'. Did you mean sharpe?"),
        ("name=7", "name = 7; expected text; put it in quotes."),
        ("day=2020-02-31", "day = '2020-02-31'; expected a date such as 2015-01-31."),
        ("parameters.phi=x", "parameters.phi = 'x'; expected a number."),
        ("parts.left.sise=2", "unknown key parts.left.sise. Did you mean size?"),
        ("parts.left.size=big", "parts.left.size = 'big'; expected a whole number."),
        ("rows=[{size: 1}, {sise: 2}]", "unknown key rows.1.sise. Did you mean size?"),
    ],
)
def test_a_mistake_is_one_line_that_names_file_key_and_cure(tmp_path, override, message):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, "name: a", override)
    assert str(caught.value) == f"regime_ppo.yaml: {message}"


def test_a_missing_key_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"^regime_ppo.yaml: name is missing\. Give it a value\.$"):
        load(tmp_path, "metric: cagr")


def test_values_go_where_they_belong(tmp_path):
    made = load(tmp_path, "name: a", "model.kind=mlp", "model.layers=[4, 5]", "training.value_clip=", "day=2021-05-01")
    assert made.model == Mlp(layers=(4, 5))
    assert made.training.value_clip is None
    assert made.day == datetime.date(2021, 5, 1)


def test_yaml_becomes_a_dataclass_and_the_same_yaml_again(tmp_path):
    made = load(tmp_path, "name: a", "training.learning_rate=[[0, 1e-3], [100, 1e-5]]", "parameters.phi=1e-7", "name='1e5'")
    again = load(tmp_path, to_yaml(made))
    assert again == made
    assert to_yaml(again) == to_yaml(made)


def test_plain_holds_only_what_json_knows():
    content = plain(Example(name="a"))
    assert content["day"] == "2020-01-31"
    assert content["model"] == {"kind": "gru", "hidden_size": 8}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[
            ("1e-4", 1e-4),
            ("1E3", 1000.0),
            ("-2.5", -2.5),
            (".5", 0.5),
            ("5.", 5.0),
            ("300_000", 300_000),
            ("0", 0),
            ("-3", -3),
        ],
        *[("true", True), ("False", False), ("", None), ("null", None), ("~", None)],
        *[("ON", "ON"), ("NO", "NO"), ("y", "y"), ("010", "010"), ("1:30", "1:30"), ("'600519'", "600519"), ("e5", "e5")],
        *[("2020-01-31", "2020-01-31"), ("[KO, 5, 1e2]", ["KO", 5, 100.0]), ("{a: yes}", {"a": "yes"})],
    ],
)
def test_scalars_mean_what_people_mean(text, value):
    found = apply_overrides({}, [f"key={text}"])["key"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "value", ["1e5", "600519", "ON", "true", "010", "2020-01-31", "", "null", "1:30", 1e-12, 1e22, 0.1, None]
)
def test_what_is_written_reads_back_the_same(tmp_path, value):
    path = tmp_path / "a.yaml"
    path.write_text(dump_yaml({"key": [value]}), encoding="utf-8")
    assert read_yaml(path) == {"key": [value]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: key 'a' is given twice. Keep one."),
        ("x:\n  a: 1\n  a: 1\n", "line 3: key 'a' is given twice. Keep one."),
        ("a: [1\nb: 2\n", "line 2 is not YAML"),
        ("1: a\n", "line 1: key 1 is not text."),
        ("[a, b]: 1\n", "line 1: key ['a', 'b'] is not text."),
        ("- a\n", "holds a list; expected keys and values"),
        ("", "is empty; expected keys and values"),
        ("a: !!python/object:os.system x\n", "is not YAML: could not determine a constructor"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused_with_its_line(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}:")
    assert message in str(caught.value)


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read it \(No such file or directory\)"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "weights").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ConfigError, match="is not a text file"):
        read_yaml(tmp_path / "weights")


@pytest.mark.parametrize("override", ["a", "=1", "a..b=1", ".a=1", "a.=1"])
def test_an_override_that_is_no_key_and_value_is_refused(override):
    with pytest.raises(ConfigError, match="expected key=value"):
        apply_overrides({}, [override])


def test_an_override_leaves_the_given_mapping_as_it_was():
    content = {"a": {"b": 1}}
    assert apply_overrides(content, ["a.b=2", "c.d=3"]) == {"a": {"b": 2}, "c": {"d": 3}}
    assert content == {"a": {"b": 1}}


def test_an_override_below_a_value_or_of_broken_yaml_is_refused():
    with pytest.raises(ConfigError, match="a is not a section"):
        apply_overrides({"a": 1}, ["a.b=2"])
    with pytest.raises(ConfigError, match=r"override 'a=\[1': line 1 is not YAML"):
        apply_overrides({}, ["a=[1"])
