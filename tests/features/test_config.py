"""FeatureConfig refuses what has no meaning, and says what to write instead."""

from __future__ import annotations

import pytest

from envs.errors import ConfigError
from rlplatform.features import FeatureConfig


def test_the_default_names_every_group_and_its_longest_window_is_a_year():
    config = FeatureConfig()
    assert config.groups == ("returns", "volatility", "skewness", "drawdown", "trend", "volume", "cross_section", "market")
    assert config.warm_up == 252


def test_lists_as_yaml_gives_them_become_tuples():
    assert FeatureConfig(return_windows=[1, 2], groups=["returns"]) == FeatureConfig(return_windows=(1, 2), groups=("returns",))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("groups", ("momentum",), "names 'momentum'; expected some of returns"),
        ("groups", "returns", "expected a list"),
        ("return_windows", 21, r"expected a list, for instance \[21\]"),
        ("rsi_windows", (0,), "whole numbers of bars"),
        ("rsi_windows", (14.5,), "whole numbers of bars"),
        ("average_windows", (20, 20), "names a window twice"),
        ("drawdown_lag", 0, "whole number of bars"),
        ("regime_window", True, "whole number of bars"),
        ("ewma_decay", 94, "RiskMetrics uses 0.94"),
        ("clip", 0, "standard deviations"),
    ],
)
def test_a_setting_outside_its_meaning_is_refused_by_name(field, value, message):
    with pytest.raises(ConfigError, match=rf"features\.{field}.*{message}"):
        FeatureConfig(**{field: value})
