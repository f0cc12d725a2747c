"""Secrets never reach a file, a log or a tracker."""

import dataclasses
import io
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlplatform.experiments.config import load_config
from rlplatform.experiments.loading import plain
from rlplatform.experiments.provenance import describe_environment
from rlplatform.experiments.secrets import SecretFilter, is_secret_name, redacted, redacted_text, secret_values

FAKE = "hunter2hunter2"


@pytest.fixture
def fake_key(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", FAKE)


def test_what_stands_under_a_secret_name_is_struck_out_whatever_it_is():
    found = redacted({"wandb_api_key": "abc", "hfToken": 5, "db": {"Password": {"a": 1}}, "aws-secret": ["x"], "seed": 3})
    assert found == {
        "wandb_api_key": "[redacted]",
        "hfToken": "[redacted]",
        "db": {"Password": "[redacted]"},
        "aws-secret": "[redacted]",
        "seed": 3,
    }


def test_values_of_secret_variables_are_struck_out_of_texts_and_keys_at_any_depth(fake_key):
    found = redacted({"path": f"s3://{FAKE}/x", FAKE: 1, "list": [{"deep": (f"a {FAKE} b",)}], "error": f"bad: {FAKE}"})
    assert found == {
        "path": "s3://[redacted]/x",
        "[redacted]": 1,
        "list": [{"deep": ["a [redacted] b"]}],
        "error": "bad: [redacted]",
    }


def test_a_user_and_password_in_a_url_and_an_assigned_key_are_struck_out():
    assert redacted_text("proxy http://me:pw@host:80/x") == "proxy http://[redacted]@host:80/x"
    assert redacted_text("curl ?api_key=abc123&n=5") == "curl ?api_key=[redacted]&n=5"
    assert redacted_text("WANDB_API_KEY = abc, seed=3") == "WANDB_API_KEY = [redacted], seed=3"
    assert redacted_text("https://wandb.ai/team/project at 10:30") == "https://wandb.ai/team/project at 10:30"


def test_short_values_are_no_secrets_and_longer_ones_go_first():
    environment = {"A_KEY": "1", "B_TOKEN": "abcdef", "C_SECRET": "abcdefgh", "PATH": "/usr/bin:/bin"}
    assert secret_values(environment) == ("abcdefgh", "abcdef")
    assert redacted_text("1 abcdefgh abcdef", environment) == "1 [redacted] [redacted]"


@given(
    st.dictionaries(st.sampled_from(["A_KEY", "B_TOKEN", "HOME"]), st.text("abcx", min_size=6, max_size=8)), st.text("abcx ")
)
def test_no_secret_value_survives(environment, text):
    left = redacted_text(text, environment)
    assert not [value for value in secret_values(environment) if value in left]


def test_no_setting_and_no_line_of_a_manifest_of_ours_is_struck_out(small_yaml):
    """The rule is wide on purpose; it must not eat what a run needs to be repeated."""
    config = dataclasses.replace(load_config(small_yaml), results_dir="results")
    assert redacted(config, {}) == plain(config)
    manifest = describe_environment()
    assert redacted(manifest, {}) == manifest
    assert not [name for name in ("env_steps", "monetary", "tape_sha256") if is_secret_name(name)]


def test_a_log_handler_with_the_filter_writes_no_secret(fake_key):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(SecretFilter())
    logger = logging.getLogger("tests.secrets")
    logger.addHandler(handler)
    try:
        logger.warning("key %s", FAKE)
        try:
            raise ValueError(f"refused {FAKE}")
        except ValueError:
            logger.exception("failed")
    finally:
        logger.removeHandler(handler)
    assert FAKE not in stream.getvalue()
    assert "key [redacted]" in stream.getvalue()
    assert "ValueError: refused [redacted]" in stream.getvalue()


def test_what_the_command_line_logs_has_no_secrets(fake_key, typed, monkeypatch, capsys):
    used = {}
    monkeypatch.setattr(logging, "basicConfig", lambda **settings: used.update(settings))
    assert typed("--version")[0] == 0
    (handler,) = used["handlers"]
    handler.handle(logging.LogRecord("any.library", logging.WARNING, "", 0, "refused %s", (FAKE,), None))
    printed = capsys.readouterr().err
    assert "refused [redacted]" in printed
    assert FAKE not in printed
