"""A market where mean and tail want different weights: the same PPO finds both, by the weight of CVaR in its objective."""

import pytest

from rlplatform.data.tail_optimal import tail_frontier, tail_point
from rlplatform.evaluation.metrics import summarize
from rlplatform.experiments.config import load_config
from rlplatform.experiments.judging import backtest
from rlplatform.experiments.market import prepare_market
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.experiments.training import train
from rlplatform.models.policy import Policy
from tests.conftest import REPOSITORY

STEPS = 130_000


def judged(tmp_path, weight):
    """Mean weights on unseen rows, the worst days, and both objectives' figures under the law."""
    rate = f"training.learning_rate=[[0, 0.003], [{STEPS}, 0.0003]]"
    steps, risk = f"training.total_env_steps={STEPS}", f"training.cvar_weight={weight}"
    config = load_config(REPOSITORY / "tune_configs" / "planted_fat_tail.yaml", [f"results_dir={tmp_path}", steps, rate, risk])
    tape, run = prepare_market(config).tape, RunDirectory.create(config)
    train(config, tape, run)
    track = backtest(config, tape, Policy.load(run.checkpoint("last") / "policy"), *config.split.test)
    model, held = config.data.model(), track.weights.mean(0)
    return held, summarize(track).cvar_5, tail_point(model.scenarios(), held, 0.05), model


@pytest.mark.slow
def test_mean_and_tail_are_traded_as_the_weight_of_cvar_says(tmp_path, ray_session):
    greedy, crash_days, earned, model = judged(tmp_path / "mean", 0.0)
    careful, calm_days, kept, _ = judged(tmp_path / "tail", 0.5)
    known = tail_frontier(model.scenarios(), model.caps, 0.05, (0.0, 0.5))
    assert greedy[0] > 0.85  # of 1.00 in CARRY
    assert 0.08 < careful[0] < 0.35  # of 0.20
    assert crash_days < -0.004 < 0.0 < calm_days
    assert kept.log_growth < earned.log_growth

    def objective(point):
        return 0.5 * (point.log_growth + point.log_growth_cvar)

    assert objective(kept) > 0.8 * objective(known[1])
    assert objective(kept) > objective(earned) + 0.001
