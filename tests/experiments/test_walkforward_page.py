"""The page of a walk-forward: its folds, its seeds, and the judged path taken apart."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from envs.errors import ConfigError
from rlplatform.evaluation.html_report import render_html
from rlplatform.experiments.market import prepare_market
from rlplatform.experiments.reporting import collect_walk, report_run
from rlplatform.experiments.results_directory import FINISHED
from rlplatform.experiments.trainers import training_env
from rlplatform.experiments.walkforward_directory import WalkForwardDirectory, load_walk
from rlplatform.models.actor_critic import ActorCritic
from rlplatform.models.heads import head_for
from rlplatform.models.policy import Policy

YAML = """\
name: tiny
data: {{source: synthetic, market: momentum, bars: 1200}}
split:
  train: [2000-06-01, 2002-12-31]
  test: [2003-01-01, 2004-06-30]
env: {{id: Portfolio-v0, costs: {{proportional_bps: 2}}}}
model: {{kind: mlp, layers: [8]}}
evaluation: {{bootstrap: {{resamples: 100}}}}
results_dir: {results}
walkforward: {{train_years: 2.5, test_months: 12, seeds: [3, 4, 5]}}
"""


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """A finished walk-forward of random networks: nothing is trained."""
    folder = tmp_path_factory.mktemp("walk")
    path = folder / "tiny.yaml"
    path.write_text(YAML.format(results=folder / "results"), encoding="utf-8")
    walk = load_walk(path)
    directory, dates = WalkForwardDirectory.create(walk), prepare_market(walk.base).tape.dates
    for fold in walk.folds(dates):
        for seed in walk.seeds:
            config, trial = walk.config_for(fold, dates, seed), directory.fold(fold.number, seed)
            market = prepare_market(config)
            env = training_env(config, market.tape)
            torch.manual_seed(100 * fold.number + seed)
            network = ActorCritic(config.model, env.observation_space.shape[0], head_for(env.action_space))
            torch.nn.init.normal_(network.policy.weight, std=0.5)
            trial.begin({"fold": fold.number}, seed)
            trial.run.write_config(config)
            trial.run.write_policy(Policy(network, None, config.env.id), market.scaler)
            trial.end(FINISHED)
    return directory


def test_the_page_has_folds_and_seeds_and_takes_the_judged_path_apart(walked):
    found = collect_walk(walked)
    walk, judged = found.walk, found.walk.tracks[found.walk.seed]
    assert set(walk.tracks) == {3, 4, 5}
    assert_allclose(judged.wealth, found.verdict.policy.wealth)
    own = [row for row in walk.folds if row["seed"] == walk.seed]
    assert len(own) == 2
    assert_allclose(np.prod([1 + row["total_return"] for row in own]) - 1, found.result.total_return, rtol=1e-9)
    spread = found.seeds.spread["sharpe"]
    assert spread.lowest <= found.seeds.own["sharpe"] == spread.median <= spread.highest
    assert any("each fold has a policy of its own" in line for line in found.left_out)
    text = render_html(found)
    for heading in ("Walk-forward folds", "Seeds", "Where the result came from", "Costs"):
        assert f">{heading}</h2>" in text
    assert ">Why it decided so</h2>" not in text


def test_a_walk_forward_whose_folds_are_not_all_trained_is_refused(walked, monkeypatch):
    fold = WalkForwardDirectory.fold
    monkeypatch.setattr(WalkForwardDirectory, "fold", lambda self, number, seed: fold(self, number + (seed == 5), seed))
    with pytest.raises(ConfigError, match=r"fold 1, seed 5 is not trained \(1 of 6 are left\).*walkforward --resume"):
        report_run(walked.path)
