"""Settings of trackers: the files that come with the package, defaults, and one line for each mistake."""

import pytest
import yaml

from perception.core import NUSCENES_TRACKING, UsageError
from perception.core.config import parse_config, shipped_config
from perception.tracking import GreedyConfig, ParityConfig, TrackerConfig, load_tracker_config

GATE = "gate: {car: 2.0, bus: 3.0}"
AGE = "max_age: {car: 1.5, bus: 1.5}"


def load(tmp_path, *lines: str):
    path = tmp_path / "my_tracker.yaml"
    path.write_text("tracker:\n" + "".join(f"  {line}\n" for line in lines))
    return load_tracker_config(path).tracker


def test_without_a_path_the_settings_that_come_with_the_package_are_taken():
    config = load_tracker_config().tracker
    assert isinstance(config, GreedyConfig)
    assert set(config.gate) == set(config.max_age) == set(NUSCENES_TRACKING)
    assert config == load_tracker_config(shipped_config("tracker_greedy.yaml")).tracker


def test_the_shipped_file_says_what_the_defaults_are():
    # Whoever copies the file, or writes only gates and ages, gets the same tracker.
    config = load_tracker_config().tracker
    assert config == GreedyConfig(gate=config.gate, max_age=config.max_age)
    written = yaml.safe_load(shipped_config("tracker_greedy.yaml").read_text())["tracker"]
    assert set(written) == set(GreedyConfig.model_fields)  # the file shows every setting


def test_the_parity_file_is_the_published_default():
    config = load_tracker_config(shipped_config("tracker_parity.yaml")).tracker
    assert config == ParityConfig(parity=True, assignment="greedy", max_age=3)


def test_settings_that_are_not_named_have_defaults(tmp_path):
    config = load(tmp_path, GATE, AGE)
    assert isinstance(config, GreedyConfig)
    assert (config.parity, config.min_hits, config.birth_score, config.first_confidence, config.coast_decay) == (False, 1, 0.0, 0.5, 0.5)
    assert load(tmp_path, "parity: true") == ParityConfig(parity=True)


def test_whole_numbers_do_where_fractions_are_expected(tmp_path):
    assert load(tmp_path, "gate: {car: 2}", "max_age: {car: 3}").gate == {"car": 2.0}


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(ValueError, match="frozen"):
        load_tracker_config().tracker.min_hits = 3


def test_finished_settings_are_taken_as_they_are():
    for config in (load_tracker_config().tracker, ParityConfig(parity=True)):
        assert TrackerConfig(tracker=config).tracker == config
        assert parse_config({"tracker": config.model_dump()}, TrackerConfig, where="run.json").tracker == config


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        pytest.param([GATE, AGE, "gaet: 3"], r".gaet: unknown key, expected .* gate, .*; did you mean 'gate'\?", id="key"),
        pytest.param(
            ["parity: true", "maxage: 3"], r".maxage: unknown key, .* assignment, max_age; did you mean 'max_age'\?", id="parity key"
        ),
        pytest.param([GATE, AGE, "qqq: 3"], r".qqq: unknown key, expected one of [a-z_, ]*coast_decay$", id="key like none"),
        pytest.param(
            ["gate: {padestrian: 1.0}", AGE],
            r".gate: padestrian: unknown class, expected one of bicycle, .*, truck; did you mean 'pedestrian'\?",
            id="class",
        ),
        pytest.param(["gate: {barrier: 1}", AGE], ".gate: barrier: unknown class", id="class not tracked"),
        pytest.param(
            ["gate: {car: 2.0, bus: 3.0}", "max_age: {car: 1.5, truck: 1.0}"],
            ": gate and max_age: expected the same classes in both, got bus, truck in one only",
            id="different classes",
        ),
        pytest.param(["gate: {car: 0}", "max_age: {car: 1}"], ".gate.car: Input should be greater than 0, got 0$", id="zero"),
        pytest.param(["gate: {car: 2}", "max_age: {car: -1}"], ".max_age.car: Input should be greater than 0, got -1$", id="negative"),
        pytest.param(["gate: {car: .inf}", "max_age: {car: 1}"], ".gate.car: Input should be .*, got inf", id="infinite"),
        pytest.param(["gate: {car: .nan}", "max_age: {car: 1}"], ".gate.car: Input should be .*, got nan", id="NaN"),
        pytest.param(["gate: {car: 2}", "max_age: {car: 1.0e+300}"], ".max_age.car: Input should be less .*, got 1e", id="huge"),
        pytest.param(["gate: {car: wide}", "max_age: {car: 1}"], ".gate.car: Input should be a valid number, .*, got 'wide'", id="text"),
        pytest.param(["gate: {}", AGE], ".gate: Dictionary should have at least 1 item", id="no class"),
        pytest.param(["gate: 2.0", AGE], ".gate: Input should be a valid dictionary, got 2.0", id="one gate for all"),
        pytest.param([GATE], ".max_age: expected this key, it is missing", id="missing"),
        pytest.param([GATE, AGE, "min_hits: 0"], ".min_hits: Input should be greater than or equal to 1, got 0", id="min_hits"),
        pytest.param([GATE, AGE, "min_hits: 1.5"], ".min_hits: Input should be a valid integer, .*, got 1.5", id="half a hit"),
        pytest.param([GATE, AGE, "birth_score: 1.5"], ".birth_score: Input should be less than or equal to 1, got 1.5", id="score"),
        pytest.param([GATE, AGE, "coast_decay: 0"], ".coast_decay: Input should be greater than 0, got 0", id="coast_decay"),
        pytest.param([GATE, AGE, "first_confidence: 0"], ".first_confidence: Input should be greater than 0", id="first_confidence"),
        pytest.param([GATE, AGE, "gate_growth: 2"], ".gate_growth: Input should be less than or equal to 1, got 2", id="gate_growth"),
        pytest.param([GATE, AGE, "gate_horizon: 0"], ".gate_horizon: Input should be greater than 0, got 0", id="gate_horizon"),
        pytest.param([GATE, AGE, "name: kalman"], ".name: Input should be 'greedy', got 'kalman'", id="name"),
        pytest.param([GATE, AGE, "parity: maybe"], ".parity: Input should be False, got 'maybe'", id="parity"),
        pytest.param(["parity: true", "max_age: -1"], ".max_age: Input should be greater than or equal to 0, got -1", id="parity age"),
        pytest.param(
            ["parity: true", "assignment: auction"],
            ".assignment: Input should be 'greedy' or 'hungarian', got 'auction'",
            id="assignment",
        ),
        pytest.param(["parity: true", GATE], ".gate: unknown key, expected one of name, parity, assignment, max_age", id="gate of parity"),
    ],
)
def test_a_mistake_is_one_line_with_file_key_expected_and_got(tmp_path, lines, message):
    with pytest.raises(UsageError, match=r"my_tracker\.yaml: tracker" + message) as caught:
        load(tmp_path, *lines)
    assert "\n" not in str(caught.value)


def test_each_of_several_mistakes_has_its_line(tmp_path):
    with pytest.raises(UsageError) as caught:
        load(tmp_path, "gate: {car: 0}", "max_age: {car: -1}", "min_hit: 2")
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["tracker.gate.car", "tracker.max_age.car", "tracker.min_hit"]
    assert lines[2].endswith("did you mean 'min_hits'?")


@pytest.mark.parametrize("text", ["tracker: 3\n", "tracker: [1]\n", "tracker:\n"], ids=["number", "list", "nothing"])
def test_a_tracker_is_keys_and_values(tmp_path, text):
    path = tmp_path / "my_tracker.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"my_tracker\.yaml: tracker: Input should be a valid dictionary"):
        load_tracker_config(path)


def test_the_key_above_the_settings_is_tracker(tmp_path):
    path = tmp_path / "my_tracker.yaml"
    path.write_text("trakcer: {}\n")
    with pytest.raises(UsageError, match=r"trakcer: unknown key, expected one of tracker; did you mean 'tracker'\?"):
        load_tracker_config(path)
