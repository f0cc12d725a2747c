"""Runs without a training: a policy of random weights in a complete run directory, judged and written down."""

from __future__ import annotations

import torch

from rlplatform.experiments.config import load_config
from rlplatform.experiments.judging import judge_policy
from rlplatform.experiments.market import prepare_market
from rlplatform.experiments.run_directory import RunDirectory
from rlplatform.experiments.trainers import training_env
from rlplatform.models.actor_critic import ActorCritic
from rlplatform.models.heads import head_for
from rlplatform.models.policy import Policy


def untrained_run(yaml, results, *overrides, seed=0, judged=True):
    """A finished run whose policy is a random network."""
    config = load_config(yaml, [f"results_dir={results}", f"seed={seed}", *MLP, *overrides])
    market = prepare_market(config)
    env, run = training_env(config, market.tape), RunDirectory.create(config)
    torch.manual_seed(seed)
    network = ActorCritic(config.model, env.observation_space.shape[0], head_for(env.action_space))
    torch.nn.init.normal_(network.policy.weight, std=0.5)
    policy = Policy(network, None, config.env.id)
    run.write_policy(policy, market.scaler)
    manifest = {"run": config.name, "status": "finished", "data": {"symbols": list(market.prices.symbols)}}
    if judged:
        verdict = judge_policy(config, market.tape, policy, *config.split.test)
        manifest |= {"test": verdict.metrics[verdict.policy.name].to_dict(), "verdict": verdict.sentence}
    run.write_manifest(manifest)
    return run


MLP = ("model={kind: mlp, layers: [8]}",)
