import pytest

from envs.errors import ConfigError
from rlplatform.offline.behaviour_config import BehaviourConfig, behaviour_config


def test_a_short_form_names_kind_settings_and_noise():
    assert behaviour_config("momentum") == BehaviourConfig(kind="momentum")
    assert behaviour_config("topk_equal_weight:top=3,lookback_bars=21+noise:0.2") == BehaviourConfig(
        kind="topk_equal_weight", top=3, lookback_bars=21, sigma=0.2
    )
    assert behaviour_config("regime_rotation+epsilon:0.1").epsilon == 0.1
    assert behaviour_config("policy:results/a/policy+noise:0.1").path == "results/a/policy"
    certain = behaviour_config("policy:results/a/policy+deterministic+noise:0.1")
    assert (certain.path, certain.deterministic, certain.sigma) == ("results/a/policy", True, 0.1)
    assert behaviour_config("blend:momentum*0.7,risk_parity*0.3").members == (("momentum", 0.7), ("risk_parity", 0.3))


def test_a_config_survives_json():
    config = behaviour_config("blend:momentum*0.7,risk_parity+noise:0.1")
    assert behaviour_config(config.to_dict()) == config


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("momentun", "expected one of .* Did you mean momentum"),
        ("momentum+noise:much", r"\+noise = 'much'; expected a number"),
        ("momentum+dither:1", r"\+dither is unknown; expected \+noise:SIGMA or \+epsilon:SHARE"),
        ("momentum+deterministic", r"\+deterministic is unknown; expected \+noise"),
        ("momentum:top", "'top' is no setting; expected key=value"),
        ("momentum:topp=3", "unknown key policy.topp. Did you mean top"),
        ("uniform+epsilon:2", r"policy.epsilon = 2.0; expected a probability in \[0, 1\]"),
        ("momentum:lookback_bars=1", "policy.lookback_bars = 1; expected at least 2"),
        ("blend", "write a blend as"),
        ("policy", "write a trained one as"),
        ({"top": 3}, "policy.kind is missing"),
    ],
)
def test_a_mistake_names_what_was_expected(spec, message):
    with pytest.raises(ConfigError, match=message):
        behaviour_config(spec)
