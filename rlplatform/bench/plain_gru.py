"""The same network as ours, as a user of torch would write it: `torch.nn.GRU`, and no resets inside a sequence."""

from __future__ import annotations

from torch import Tensor, nn


class PlainGRU(nn.Module):
    """Linear → ReLU → LayerNorm → torch.nn.GRU, and two linear heads. Batch first."""

    def __init__(self, obs_size: int, num_actions: int, embedding_size: int, hidden_size: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(obs_size, embedding_size), nn.ReLU(), nn.LayerNorm(embedding_size))
        self.gru = nn.GRU(embedding_size, hidden_size, batch_first=True)
        self.policy = nn.Linear(hidden_size, num_actions)
        self.value = nn.Linear(hidden_size, 1)

    def features(self, obs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """obs (B, T, D), state (B, H) → features (B, T, H), state (B, H)."""
        features, last = self.gru(self.embed(obs), state[None])
        return features, last[0]
