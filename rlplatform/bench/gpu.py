"""The fast path on a GPU: whole training, and its parts alone (torch env, GRU one step at a time, a gradient).

    python -m rlplatform.bench.gpu

Without a GPU it says so and ends well.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from rlplatform.bench.contenders import SAMPLING, TRAINING
from rlplatform.bench.env_speed import stepper
from rlplatform.bench.figures import short
from rlplatform.bench.process import run_alone
from rlplatform.bench.stopwatch import timed
from rlplatform.bench.task import MODEL, NUM_ACTIONS, OBS_SIZE, BenchTask
from rlplatform.models.actor_critic import ActorCritic
from rlplatform.models.heads import CategoricalHead

NO_GPU = "no GPU here: torch.cuda.is_available() is false, nothing was measured."
ACCOUNTS, BATCHES = (4_096, 16_384, 65_536), (4_096, 16_384, 65_536)


def training_rows(accounts: tuple[int, ...] = ACCOUNTS, seconds: float = 5.0) -> list[dict[str, Any]]:
    """Whole training of the benchmark's task on "cuda" by numbers of accounts, four epochs of four minibatches."""
    rows = []
    for b in accounts:
        batch = MODEL.max_seq_len * b
        task = BenchTask(num_envs=b, batch_size=batch, minibatch_size=batch // 4, seconds=seconds)
        for precision in ("float32", "bfloat16"):
            result = run_alone("ours", task, {"precision": precision, "device": "cuda"})
            rates = {part: result.get(part, {}).get("steps_per_s") for part in (TRAINING, SAMPLING)}
            rows.append({"accounts": b, "precision": precision, "error": result.get("error"), **rates})
    return rows


def gpu_rows(
    device: str = "cuda", seconds: float = 2.0, accounts: tuple[int, ...] = ACCOUNTS, batches: tuple[int, ...] = BATCHES
) -> list[dict[str, Any]]:
    """Rows of {"what", "size", "steps_per_s"}, by wall seconds with the device waited for."""
    works: dict[tuple[str, int], Callable[[], int]] = {}
    for b in accounts:
        works["TradingVectorEnv on torch, 3 assets; accounts", b] = stepper("torch", b, 3, device)
    for b in accounts:
        works["GRU one step at a time, float32; accounts", b] = partial(_act, _network(device), b, device)
    for batch in batches:
        for dtype in (torch.float32, torch.bfloat16):
            name = f"forward and backward of sequences, {str(dtype).removeprefix('torch.')}; transitions"
            works[name, batch] = partial(_learn, _network(device), batch, device, dtype)
    return [
        {"what": what, "size": size, "steps_per_s": timed(partial(_waited, work, device), seconds, 3).steps_per_s}
        for (what, size), work in works.items()
    ]


def _network(device: str) -> ActorCritic:
    return ActorCritic(MODEL, OBS_SIZE, CategoricalHead(NUM_ACTIONS)).to(device)


def _waited(work: Callable[[], int], device: str) -> int:
    steps = work()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
    return steps


@torch.no_grad()
def _act(network: ActorCritic, accounts: int, device: str) -> int:
    obs, state = torch.zeros(accounts, OBS_SIZE, device=device), network.initial_state(accounts)
    for _ in range(MODEL.max_seq_len):
        state = network(obs, state).state
    return accounts * MODEL.max_seq_len


def _learn(network: ActorCritic, transitions: int, device: str, dtype: torch.dtype) -> int:
    sequences = max(1, transitions // MODEL.max_seq_len)
    obs = torch.zeros(MODEL.max_seq_len, sequences, OBS_SIZE, device=device)
    network.zero_grad(set_to_none=True)
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=dtype is torch.bfloat16):
        features, _ = network.encoder.forward_sequence(obs, None, network.initial_state(sequences))
    features = features.float()
    (network.action_params(features).mean() + network.values(features).mean()).backward()
    return sequences * MODEL.max_seq_len


def main() -> None:
    if not torch.cuda.is_available():
        print(NO_GPU)
        return
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; per wall second")
    for row in training_rows():
        found = row["error"] or f"{short(row[TRAINING])} steps/s, sampling alone {short(row[SAMPLING])}"
        print(f"whole training, {row['precision']}, {row['accounts']:,} accounts: {found}")
    for row in gpu_rows():
        print(f"{row['what']} {row['size']:,}: {short(row['steps_per_s'])} steps/s")


if __name__ == "__main__":
    main()
