"""docs/EXTENDING.md, run as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch.testing import assert_close

from envs.errors import ConfigError
from rlplatform.experiments.config import load_config
from rlplatform.experiments.judging import policy_name
from rlplatform.experiments.loading import to_yaml
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.models.actor_critic import ActorCritic
from rlplatform.models.config import model_class, model_config_dict, model_config_from
from rlplatform.models.heads import LogisticNormalHead
from rlplatform.models.policy import Policy
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "EXTENDING.md").read_text(encoding="utf-8")
KIND = "my_models:FadingConfig"


ALGORITHM = "my_algorithms:SmoothPPO"


def block(language: str, number: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[number]


@pytest.fixture
def my_models(tmp_path, monkeypatch):
    """The page's files on the path, and nothing of it left afterwards."""
    (tmp_path / "my_models.py").write_text(block("python"), encoding="utf-8")
    (tmp_path / "my_algorithms.py").write_text(block("python", 2), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in ("my_models", "my_algorithms"):
        sys.modules.pop(name, None)


def test_the_page_shows_a_model_of_some_thirty_lines():
    assert len(block("python").strip().splitlines()) <= 42


def test_the_pages_key_loads_strictly(my_models, small_yaml):
    page = yaml.safe_load(block("yaml"))["model"]
    settings = [f"model={page | {'sequence_length': 16}}"]
    model = load_config(small_yaml, settings).model
    assert (model.kind, model.width, type(model).__name__) == (KIND, 32, "FadingConfig")
    assert model_config_from(model_config_dict(model)) == model
    with pytest.raises(ConfigError, match=r"small.yaml: model: unknown key widht. Did you mean width\?"):
        load_config(small_yaml, [f"model={{kind: '{KIND}', widht: 32}}"])
    with pytest.raises(ConfigError, match=r"model: width = 'wide'; expected a whole number"):
        load_config(small_yaml, [f"model={{kind: '{KIND}', width: wide}}"])


def test_the_pages_model_keeps_the_contract(my_models):
    net = ActorCritic(model_class(KIND)(width=8), 6, LogisticNormalHead(4))
    obs, state, first = torch.randn(3, 9, 6), torch.randn(3, 6), torch.rand(3, 9) < 0.3
    whole = net(obs, state, first)
    for t in range(9):
        step = net(obs[:, t], state, first[:, t])
        state = step.state
        assert_close(step.params, whole.params[:, t])
    assert_close(state, whole.state)


def test_a_policy_of_ones_own_loads_once_its_module_is_imported(my_models):
    policy = Policy(ActorCritic(model_class(KIND)(width=8), 6, LogisticNormalHead(4)), None, "Portfolio-v0")
    policy.save(my_models / "policy")
    del sys.modules["my_models"]
    with pytest.raises(ConfigError, match=r"If you trust it, import my_models first"):
        Policy.load(my_models / "policy")
    __import__("my_models")
    loaded, obs = Policy.load(my_models / "policy"), np.ones((2, 6), np.float32)
    np.testing.assert_array_equal(loaded.act(obs, loaded.initial_state(2))[0], policy.act(obs, policy.initial_state(2))[0])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no_such_module:X", r"No module named 'no_such_module'. Put the module's folder on PYTHONPATH"),
        ("json:JSONDecoder", r"json has no dataclass JSONDecoder that is a subclass of EncoderConfig"),
        ("my_models", r"expected one of"),
    ],
)
def test_what_is_no_model_is_named(kind, message, small_yaml):
    with pytest.raises(ConfigError, match=message):
        load_config(small_yaml, [f"model={{kind: '{kind}'}}"])


@pytest.mark.slow
def test_the_page_trains_and_is_judged_from_the_command_line(my_models, small_yaml):
    command = [sys.executable, "-m", "rlplatform", "train", str(small_yaml), f"model={{kind: '{KIND}', width: 8}}"]
    environment = {"PYTHONPATH": f"{my_models}:{REPOSITORY}", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert "PPO_FADINGCONFIG" in done.stdout


def test_the_pages_algorithm_loads_strictly_and_reads_back_from_what_a_run_keeps(my_models, small_yaml, tmp_path):
    assert len(block("python", 2).strip().splitlines()) <= 36
    page = yaml.safe_load(block("yaml", 1))["training"]
    config = load_config(small_yaml, [f"training.{key}={value}" for key, value in page.items()])
    assert (config.training.algorithm, config.training.smoothness) == (ALGORITHM, 0.3)
    assert config.training.length == load_config(small_yaml).training.length  # PPO's own keys are there
    assert policy_name(config) == f"SMOOTHPPO_{config.model.kind.upper()}"
    (tmp_path / "kept.yaml").write_text(to_yaml(config), encoding="utf-8")
    assert load_config(tmp_path / "kept.yaml") == config
    with pytest.raises(ConfigError, match=r"training: unknown key smothness. Did you mean smoothness\?"):
        load_config(small_yaml, [f"training={{algorithm: '{ALGORITHM}', smothness: 1}}"])
    with pytest.raises(ConfigError, match=r"no dataclass FadingConfig that is a subclass of PPOTrainingConfig"):
        load_config(small_yaml, ["training.algorithm=my_models:FadingConfig"])


@pytest.mark.slow
def test_the_pages_algorithm_trains_and_a_policy_that_pays_for_changes_changes_less(my_models, small_yaml):
    environment = {"PYTHONPATH": f"{my_models}:{REPOSITORY}", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    changes = {}
    for smoothness in (0, 1000):
        settings = [f"training.algorithm={ALGORITHM}", f"training.smoothness={smoothness}", f"name=smooth{smoothness}"]
        command = [sys.executable, "-m", "rlplatform", "train", str(small_yaml), *settings]
        done = subprocess.run(
            command, env=os.environ | environment, capture_output=True, text=True, check=False, cwd=REPOSITORY
        )
        assert done.returncode == 0, done.stderr
        run = next(Path(load_config(small_yaml).results_dir).glob(f"smooth{smoothness}-*"))
        changes[smoothness] = RunDirectory.open(run).metrics()[-1]["change"]
    assert 0 < changes[1000] < 0.5 * changes[0]
