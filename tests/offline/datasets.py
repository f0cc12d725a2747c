"""A small dataset on a random market, written as collecting writes one, for the tests of this room."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from envs.trading_env import TradingVectorEnv
from rlplatform.files import write_json
from rlplatform.models.heads import head_for
from rlplatform.offline.behaviour import make_behaviour
from rlplatform.offline.behaviour_config import behaviour_config
from rlplatform.offline.collecting import collect
from rlplatform.offline.columns import RECORDED, describe_columns
from rlplatform.offline.episodes import Episodes, joined
from rlplatform.offline.manifest import DatasetManifest, file_sha256
from rlplatform.offline.writing import write_dataset
from tests.envs.markets import CASES, random_tape

POLICIES = {"portfolio": "momentum+noise:0.3", "regime": "regime_rotation+epsilon:0.2", "pair": "pair_spread+noise:0.3"}


def trading_env(case: str, accounts: int = 4, **settings) -> TradingVectorEnv:
    from envs.catalog import make_vec

    config, assets = CASES[case]
    return make_vec(replace(config, **settings), random_tape(1, assets), accounts, autoreset_mode="same_step")


def plan_of(env: TradingVectorEnv, policy: str, format: str, columns=RECORDED, has_log_prob: bool = True) -> DatasetManifest:
    config = env.task.config
    return DatasetManifest(
        format=format,
        env=json.loads(json.dumps({"id": config.id, **asdict(config)})),
        observation_names=tuple(env.task.observation_names),
        action_space=head_for(env.task.action_space).describe(),
        behaviours=(behaviour_config(policy).to_dict(),),
        columns=describe_columns(columns),
        has_log_prob=has_log_prob,
        seed=0,
        period={"name": "train", "start": "2020-01-01", "end": "2020-02-29", "days": 60},
        experiment=None,
        scaler=None,
        prices_sha256="0" * 64,
        tape_sha256=env.task.tape.sha256,
    )


def small_dataset(
    directory: Path, case: str = "portfolio", format: str = "json", policy: str | None = None, shards: int = 2, **options
) -> tuple[Episodes, DatasetManifest]:
    """Four episodes a shard; what was written, and its manifest."""
    env, policy = trading_env(case), policy or POLICIES[case]
    behaviour = make_behaviour(policy, env.task)
    made = [collect(env, behaviour, (0, number)) for number in range(shards)]
    compress = options.pop("compress", False)
    plan = plan_of(env, policy, format, **options)
    manifest = write_dataset(directory, plan, [lambda episodes=episodes: episodes for episodes in made], compress)
    return joined(made), manifest


def assert_same_episodes(left: Episodes, right: Episodes) -> None:
    for name in ("lengths", "obs", "last_obs", "actions", "rewards", "terminated", "log_prob"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)
        assert getattr(left, name).dtype == getattr(right, name).dtype, name
    assert set(left.extras) == set(right.extras)
    for name in left.extras:
        np.testing.assert_array_equal(left.extras[name], right.extras[name], err_msg=name)


def edit_line(path: Path, number: int, change) -> None:
    """Change the columns of one line of a JSON shard; `change` gets the line as a mapping and changes it in place."""
    lines = path.read_text().splitlines()
    content = json.loads(lines[number - 1])
    change(content)
    lines[number - 1] = json.dumps(content)
    path.write_text("\n".join(lines) + "\n")


def rehash(directory: Path) -> None:
    """Make the manifest believe the shards as they are now: what someone does who edits both."""
    content = json.loads((directory / "dataset.json").read_text())
    for record in content["files"]:
        record["sha256"] = file_sha256(directory / record["name"])
    write_json(directory / "dataset.json", content)
