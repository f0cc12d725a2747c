"""The arithmetic that no training of this model can avoid, measured alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from rlplatform.algorithms.process_memory import keep_freed_memory
from rlplatform.bench.plain_gru import PlainGRU
from rlplatform.bench.stopwatch import timed
from rlplatform.bench.task import MODEL, NUM_ACTIONS, OBS_SIZE, BenchTask, bench_tape, make_vector
from rlplatform.models.actor_critic import ActorCritic
from rlplatform.models.heads import CategoricalHead

PRECISIONS = ("float32", "bfloat16")
FORWARD, FORWARD_BACKWARD, ENV = "forward", "forward_backward", "env"


def arithmetic(task: BenchTask, precisions: tuple[str, ...]) -> dict[str, float]:
    """Transitions a CPU second of each part alone, by names such as "forward_backward/bfloat16/GRUSequence".

    Freed memory is kept, as in our learner, whichever GRU is measured. The best of three laps counts: a limit is what the
    machine can do, not what it usually does.
    """
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(task.seed)
    works: dict[str, Callable[[], int]] = {ENV: _env_work(task)}
    for precision in precisions:
        works |= {f"{FORWARD}/{precision}/{name}": work for name, work in _forward_works(task, precision).items()}
        works |= {f"{FORWARD_BACKWARD}/{precision}/{name}": w for name, w in _backward_works(task, precision).items()}
    rates = dict.fromkeys(works, 0.0)
    for _ in range(3):
        for name, work in works.items():
            rates[name] = max(rates[name], timed(work, task.seconds / 12).steps_per_cpu_s)
    return rates


def _networks() -> tuple[ActorCritic, PlainGRU]:
    ours = ActorCritic(MODEL, OBS_SIZE, CategoricalHead(NUM_ACTIONS))
    return ours, PlainGRU(OBS_SIZE, NUM_ACTIONS, MODEL.embedding_size, MODEL.hidden_size)


def _forward_works(task: BenchTask, precision: str) -> dict[str, Callable[[], int]]:
    ours, plain = _networks()
    obs = torch.randn(MODEL.max_seq_len, task.num_envs, OBS_SIZE)
    state = ours.initial_state(task.num_envs)
    passes = {
        "one step at a time": lambda: _stepwise(ours, obs, state),
        "GRUSequence": lambda: _ours(ours, obs, state, precision),
        "torch.nn.GRU": lambda: _plain(plain, obs.transpose(0, 1), state, precision),
    }
    if precision != "float32":  # one step at a time is float32 in every training
        del passes["one step at a time"]
    return {name: partial(_forward, forward, obs) for name, forward in passes.items()}


def _backward_works(task: BenchTask, precision: str) -> dict[str, Callable[[], int]]:
    ours, plain = _networks()
    sequences = max(1, task.minibatch_size // MODEL.max_seq_len)
    obs = torch.randn(MODEL.max_seq_len, sequences, OBS_SIZE)
    state = ours.initial_state(sequences)
    passes = {
        "GRUSequence": (ours, lambda: _ours(ours, obs, state, precision)),
        "torch.nn.GRU": (plain, lambda: _plain(plain, obs.transpose(0, 1), state, precision)),
    }
    return {name: partial(_forward_backward, *parts, obs) for name, parts in passes.items()}


def _forward(forward: Callable[[], Tensor], obs: Tensor) -> int:
    with torch.no_grad():
        forward()
    return math.prod(obs.shape[:2])


def _forward_backward(network: torch.nn.Module, forward: Callable[[], Tensor], obs: Tensor) -> int:
    network.zero_grad(set_to_none=True)
    forward().backward()
    return math.prod(obs.shape[:2])


def _stepwise(network: ActorCritic, obs: Tensor, state: Tensor) -> None:
    for obs_t in obs:
        state = network(obs_t, state).state


def _ours(network: ActorCritic, obs: Tensor, state: Tensor, precision: str) -> Tensor:
    with torch.autocast(obs.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        features, _ = network.encoder.forward_sequence(obs, None, state)
    features = features.float()
    return network.action_params(features).mean() + network.values(features).mean()


def _plain(network: PlainGRU, obs: Tensor, state: Tensor, precision: str) -> Tensor:
    with torch.autocast(obs.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        features, _ = network.features(obs, state)
    features = features.float()
    return network.policy(features).mean() + network.value(features).mean()


def _env_work(task: BenchTask) -> Callable[[], int]:
    env = make_vector(bench_tape(), task.num_envs, autoreset_mode="same_step")
    env.reset(seed=task.seed, options={"stagger": True})
    actions = np.random.default_rng(task.seed).integers(0, NUM_ACTIONS, size=(64, task.num_envs))

    def work() -> int:
        for row in actions:
            env.step(row)
        return actions.size

    return work
