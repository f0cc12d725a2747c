"""What RLlib tells us while it trains."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.callbacks.callbacks import RLlibCallback

EPISODE = "episode"


class EpisodeTerms(RLlibCallback):
    """Logs the sums that an environment puts into the last info of an episode, `info["episode"]`.

    `{"episode": {"log_growth": 0.12, "turnover": 3.4}}` becomes the metrics `env_runners/episode/log_growth` and
    `env_runners/episode/turnover`, averaged over the last episodes like the episode return.
    """

    def on_episode_end(self, *, episode: Any, env_runner: Any, metrics_logger: Any, **kwargs) -> None:
        terms = episode.get_infos(-1).get(EPISODE)
        if not terms:
            return
        config = env_runner.config
        window = max(1, -(-config.metrics_num_episodes_for_smoothing // (config.num_env_runners or 1)))
        for name, value in terms.items():
            metrics_logger.log_value((EPISODE, name), float(value), window=window)


class SetThreads:
    """Called when the Algorithm starts: torch's threads in the process of a local Learner."""

    def __init__(self, num_threads: int) -> None:
        self.num_threads = num_threads

    def __call__(self, **kwargs) -> None:
        torch.set_num_threads(self.num_threads)
