"""Texts that mean something else than they look like: in mixes, recipes, options of commands, environment variables."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssrl_core.cli.check import options_of
from ssrl_core.errors import MixError, RecipeError, SourceError, SSRLError
from ssrl_core.mix.file import MixConfig, TaskConfig, read_mix
from ssrl_core.mix.include import Composed, self_contained
from ssrl_core.plugins.installed import ALLOWED, allowed_patterns
from ssrl_core.sources import open_source
from ssrl_core.verl.recipe import _check_keys
from ssrl_core.yamlfile import dump, read_value

TASKS = "tasks: {flipped_patch: }"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('source: "folder:C:\\temp\\new"', r"source: the control character '\t'"),
        ('source: "folder:C:\\results"', r"the control character '\r'"),
        ('source: "folder:D:\\backup"', r"the control character '\x08'"),
        ("source: |\n  folder:photos\n", r"source: the control character '\n' in 'folder:photos\n'"),
        ('include: ["..\\new.yaml"]', r"include: the control character '\n'"),
        ('tasks: {flipped_patch: {source: "folder:x\\table"}}', r"source: the control character '\t'"),
        ('source: "folder:D:\\data"', "found unknown escape character 'd'"),
        ('source: "folder:D:\\data"', "In double quotes a backslash begins an escape"),
        ('instruction: "C:\\archive"', r"the control character '\x07'"),
        ("seed: 1:30", "1:30 is a number in base 8 or 60 to some readers"),
        ("seed: 010", "010 is a number in base 8 or 60"),
        ("seed: 08", "08 is a number in base 8 or 60"),
        ("samples: 02:30:00", "in base 8 or 60"),
        ("samples: yes", "yes: write true or false, or put it in quotes if it is text"),
        ("format_weight: No", "No: write true or false"),
        ("tasks: {flipped_patch: {weight: off}}", "off: write true or false"),
        ("tasks: {on: {}}", "on: write true or false"),
        ("tasks: {flipped_patch: {weight: true}}", "tasks.flipped_patch.weight: True: Input should be a valid number"),
        ("tasks: {flipped_patch: {level: true}}", "tasks.flipped_patch.level: True: Input should be a valid string"),
        ("seed: true", "seed: True: Input should be a valid integer"),
        ("samples: 81.000", "samples: 81.0: Input should be a valid integer"),
        ("samples: '1_000'", "samples: '1_000': Input should be a valid integer"),
        ("samples: 1e-3", "samples: 0.001: Input should be a valid integer"),
        ("seed: 2026-01-02", "seed: '2026-01-02': Input should be a valid integer"),
        ("tasks: {flipped_patch: {weight: .inf}}", "weight: inf"),
        ("heldout: {fraction: .nan}", "heldout.fraction: nan"),
        ('tasks: {flipped_patch: {level: {1: 1, "1": 3}}}', "'1' stands twice"),
        ("allowed_distributions:", "allowed_distributions: None: Value error, write [] to allow no distribution"),
    ],
)
def test_a_text_that_silently_means_something_else_is_refused(write_mix, text, complaint):
    path = write_mix(text if text.startswith("tasks") else f"{text}\n{TASKS}")
    with pytest.raises(MixError) as error:
        read_mix(path)
    assert complaint in str(error.value) and path.name in str(error.value)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("samples: 1e4", "samples", 10_000),
        ("samples: 8.1E+4", "samples", 81_000),
        ("samples: 10_000", "samples", 10_000),
        ("seed: 0x1F", "seed", 31),
        ("seed: 07", "seed", 7),
        ("format_weight: 1e-1", "format_weight", 0.1),
        ("format_weight: 0", "format_weight", 0.0),
        ('instruction: "a line\\nand\\tmore"', "instruction", "a line\nand\tmore"),
        ("instruction: 'yes'", "instruction", "yes"),
        ("instruction: 2026-01-02", "instruction", "2026-01-02"),
        ("source: 'folder:C:\\temp'", "source", "folder:{}/C:\\temp"),
        ("allowed_distributions: []", "allowed_distributions", []),
    ],
)
def test_a_text_with_one_meaning_keeps_it(write_mix, tmp_path, text, key, value):
    config, _ = read_mix(write_mix(f"{text}\n{TASKS}"))
    expected = value.format(tmp_path) if isinstance(value, str) else value
    assert getattr(config, key) == expected and type(getattr(config, key)) is type(expected)


def test_a_level_may_be_written_as_a_number_and_a_home_folder_as_a_tilde(write_mix, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_mix("tasks: {flipped_patch: {level: {1: 1, paper: 3}}}", "base.yaml")
    config, _ = read_mix(write_mix("include: ~/base.yaml"))
    assert config.tasks["flipped_patch"].level == {"1": 1, "paper": 3}


@pytest.mark.parametrize("text", ["1e3", "010", "08", "yes", "1:30", "2026-01-02", "~", "0x1", "x\n", " a"])
def test_a_mix_in_one_file_keeps_its_texts(write_mix, text):
    write_mix(dump({"instruction": text, "tasks": {"flipped_patch": None}}), "base.yaml")
    path = write_mix("include: base.yaml")
    (path.parent / "whole.yaml").write_bytes(self_contained(path))
    assert read_mix(path.parent / "whole.yaml")[0].instruction == text


LETTERS = st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t")
TEXTS = st.text(LETTERS, max_size=9) | st.text("0123456789:_-+.eE", max_size=9)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_what_is_written_is_read_back_or_refused(content: dict[str, Any]) -> None:
    try:
        assert read_value(dump(content)) == content
    except (ValueError, SSRLError) as err:
        raise AssertionError(content) from err
    except Exception as err:  # texts that no file may contain
        assert "stands twice" in str(err) or "character" in str(err), err


KEYS = st.sampled_from(
    [*MixConfig.model_fields, *TaskConfig.model_fields, "flipped_patch", "fraction", "1", 1, True, None]
)
CONTENT = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(["paper", "folder:x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(KEYS, CONTENT, max_size=5), st.sampled_from(["\n", "tasks: {flipped_patch: }\n", "\ufeff", "- "])
)
def test_any_mix_file_is_read_or_refused_with_its_name(write_mix, content: dict[Any, Any], first: str) -> None:
    path = write_mix(first + yaml.safe_dump(content, allow_unicode=True))
    try:
        config, _ = read_mix(path)
    except MixError as err:
        assert str(path) in str(err)
    else:
        assert config.tasks and type(config.samples) is int and 0 < config.heldout.fraction < 1


@pytest.mark.parametrize(("text", "value"), [("a=1e-6", 1e-6), ("a=1e3", 1000), ("a='1:30'", "1:30"), ("a=true", True)])
def test_an_option_of_a_command_is_read_like_a_mix(text, value):
    assert options_of([text]) == {"a": value}


@pytest.mark.parametrize("text", ["a=1:30", "a=010", "a=no", "a=[1", "a"])
def test_an_option_of_a_command_is_refused_like_a_text_in_a_mix(text):
    with pytest.raises(SSRLError, match="--option"):
        options_of([text])


@pytest.mark.parametrize(
    ("value", "raises"), [("false", SystemExit), ("No", SystemExit), ("0", SystemExit), ("1", SSRLError)]
)
def test_a_word_for_no_does_not_turn_the_traceback_on(monkeypatch, value, raises):
    main = importlib.import_module("ssrl_core.cli").main
    monkeypatch.setenv("SSRL_DEBUG", value)
    monkeypatch.setattr("sys.argv", ["ssrl", "mix", "/nowhere/mix.yaml"])
    with pytest.raises(raises):
        main()


@pytest.mark.parametrize("uri", ["s3://bucket/photos", "https://host/photos", r"C:\photos"])
def test_an_address_or_a_drive_without_a_kind_of_source_is_answered_with_what_to_write(uri):
    with pytest.raises(SourceError, match=r"no kind of source. Write the kind .* folder:"):
        open_source(uri)


@pytest.mark.parametrize("uri", ["folder:C:\temp", "rgbd:photos\n", "manifest:a\rb.csv", "folder:\x08"])
def test_control_characters_in_the_uri_of_a_source_are_refused(uri):
    with pytest.raises(SourceError, match="the control character"):
        open_source(uri)


def test_an_option_of_a_command_that_is_given_twice_is_refused():
    with pytest.raises(SSRLError, match="an option is given twice"):
        options_of(["a=1", "b=2", "a=3"])


@pytest.mark.parametrize(
    "text",
    ["acme-a,acme-b", "acme-a, acme-b", "acme-a acme-b", "acme-a;acme-b", '"acme-a,acme-b"', "\tacme-a\nacme-b\n"],
)
def test_a_list_in_the_environment_may_be_separated_and_quoted_in_any_usual_way(monkeypatch, text):
    monkeypatch.setenv(ALLOWED, text)
    assert allowed_patterns() == ("acme-a", "acme-b")


def test_a_cache_that_cannot_be_written_is_reported(monkeypatch, tmp_path, caplog):
    (tmp_path / "m.csv").write_text("image\na.png\n")
    (tmp_path / "file").touch()
    monkeypatch.setenv("SSRL_CACHE", str(tmp_path / "file" / "cache"))
    assert len(open_source(f"manifest:{tmp_path}/m.csv")) == 1
    assert "file/cache: this list of images is not kept. Set SSRL_CACHE" in caplog.text


VERL = {"a": {"flag": True, "count": 3, "rate": 0.1, "name": "x", "free": None}}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"flag": "false"}, "a.flag: 'false' is text, but verl's default is True: remove the quotes"),
        ({"count": "20"}, "a.count: '20' is text, but verl's default is 3"),
        ({"rate": "1e-6"}, "a.rate: '1e-6' is text, but verl's default is 0.1"),
        ({"flag": False, "count": 20, "rate": 1, "name": "20", "free": "20"}, None),
        ({"flag": "${other}", "count": None}, None),
    ],
)
def test_text_where_verl_has_a_number_or_a_switch_is_refused(tmp_path, content, complaint):
    recipe = Composed(tmp_path / "grpo.yaml")
    if complaint is None:
        _check_keys({"a": content}, VERL, recipe)
        return
    with pytest.raises(RecipeError) as error:
        _check_keys({"a": content}, VERL, recipe)
    assert complaint in str(error.value)
