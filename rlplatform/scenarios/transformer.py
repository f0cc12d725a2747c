"""ReturnTransformer: a learned law of joint returns, given the market's regime."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from envs.errors import MarketDataError
from rlplatform.files import replaced_directory, write_json
from rlplatform.scenarios.config import TransformerConfig
from rlplatform.scenarios.factor_view import FURTHEST, FactorView
from rlplatform.scenarios.model import mirrored, shared
from rlplatform.scenarios.regimes import COUNT, regime_labels, simulate_regimes, transition_matrix
from rlplatform.scenarios.transformer_network import LEAST_NU, ReturnNetwork

Array = np.ndarray

LOOK_STEPS, WEIGHT_DECAY, GRAD_CLIP = 25, 0.1, 1.0
TARGET_PATHS, TARGET_BARS = 64, 300
ARRAYS, VALUES = "model.safetensors", "model.json"


@dataclass(kw_only=True, eq=False)
class ReturnTransformer:
    """z_{t+1} | z_≤t, s_{t+1} ~ t_ν(mean, L Lᵀ + diag ψ²), all by a small transformer; z standardised log returns.

    Trained by likelihood on the first training rows; the last ones say when to stop, and their best weights are kept. In a
    generated history the regimes s are a Markov chain of history's own moves. The mean moves with the factors alone: momentum
    of the market can be learnt, one asset following another cannot.

    Source: Vaswani et al. (2017) for the network; the emission is a factor model with one mixing variable for all
    assets, so that they are extreme together.

    Attributes:
        config: settings.
        network: trained.
        view: factors of history.
        mean: (N,) of history's log returns.
        std: (N,) likewise.
        scale: (N,) that generated z are multiplied by, near 1.
        z: (T, N) float32 history, standardised; paths begin after one of its rows.
        labels: (T,) its regimes.
        looks: (step, negative log likelihood a day and asset of the held-out rows), until training stopped.
        chosen_step: whose weights were kept.
    """

    kind: ClassVar[str] = "transformer"
    config: TransformerConfig
    network: ReturnNetwork
    view: FactorView
    mean: Array
    std: Array
    scale: Array
    z: Array
    labels: Array
    looks: list[tuple[int, float]]
    chosen_step: int

    @classmethod
    def fit(cls, config: TransformerConfig, gross: Array) -> ReturnTransformer:
        """Raises MarketDataError where a price stands still."""
        logs = np.log(gross)
        mean, std = logs.mean(axis=0), logs.std(axis=0)
        if (std < 1e-6).any():
            raise MarketDataError(f"scenarios.model transformer: the price in column {int(np.argmin(std))} stands still.")
        z = ((logs - mean) / std).astype(np.float32)
        view = FactorView.fit(z, min(config.factors, z.shape[1]))
        network, labels = _new_network(config, view), regime_labels(gross)
        made = cls(
            config=config,
            network=network,
            view=view,
            mean=mean,
            std=std,
            scale=np.ones_like(std),
            z=z,
            labels=labels,
            looks=[],
            chosen_step=0,
        )
        made._train()
        made._target_variance()
        return made

    def _train(self) -> None:
        config, length = self.config, min(self.config.context_bars, len(self.z) // 4)
        days, volatility, _ = self._days(self.z, self.labels)
        targets, cut = torch.from_numpy(self.z[1:]), int((1.0 - config.held_out) * len(self.z)) - 1
        held_out = torch.arange(cut - length // 2, len(targets) - length + 1, length // 2)
        draws = torch.Generator().manual_seed(config.seed)
        rate = lambda step: min(1.0, (step + 1) / 50)  # noqa: E731
        optimizer = torch.optim.AdamW(self.network.parameter_groups(config.learning_rate, WEIGHT_DECAY))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        best, kept = float("inf"), {}
        for step in range(config.steps + 1):
            if step % LOOK_STEPS == 0:
                with torch.no_grad():
                    loss = float(self._loss(days, volatility, targets, held_out, length)[:, length // 2 :].mean())
                self.looks.append((step, loss))
                if loss < best:
                    best, self.chosen_step = loss, step
                    kept = {name: value.clone() for name, value in self.network.state_dict().items()}
                if step - self.chosen_step >= config.patience * LOOK_STEPS:
                    break
            starts = torch.randint(0, cut - length + 1, (config.batch_size,), generator=draws)
            optimizer.zero_grad(set_to_none=True)
            self._loss(days, volatility, targets, starts, length).mean().backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), GRAD_CLIP)
            optimizer.step()
            schedule.step()
        self.network.load_state_dict(kept)

    def _target_variance(self) -> None:
        """Scale each asset so that generated histories vary as much as the real one did: likelihood looks at single days."""
        rng = np.random.default_rng(self.config.seed)
        generated = np.log(self.sample(TARGET_PATHS, TARGET_BARS, rng)).std(axis=(0, 1))
        self.scale = self.std / generated

    def _loss(self, days: Tensor, volatility: Tensor, targets: Tensor, starts: Tensor, length: int) -> Tensor:
        """(B, L) negative log likelihood per asset of the days after each of these windows' days."""
        rows = starts[:, None] + torch.arange(length)
        return -self.network(days[rows], volatility[rows]).log_prob(targets[rows]) / targets.shape[-1]

    @torch.no_grad()
    def sample(
        self,
        paths: int,
        bars: int,
        rng: np.random.Generator,
        history: Array | None = None,
        regime: int | None = None,
        antithetic: bool = False,
    ) -> Array:
        z, labels = self.z, self.labels
        if history is not None:
            z, labels = ((np.log(history) - self.mean) / self.std).astype(np.float32), regime_labels(history)
        length = min(self.config.context_bars, len(z) - 1)
        last = shared(rng.integers(length, len(z), paths), antithetic) if history is None else np.full(paths, len(z) - 1)
        states = simulate_regimes(
            transition_matrix(self.labels), labels[last], bars, shared(rng.random((paths, bars)), antithetic).T
        )
        regimes = torch.eye(COUNT)[torch.from_numpy(states if regime is None else np.full_like(states, regime))]
        factor, own = self._noise(paths, bars, rng, antithetic)
        days, volatility, variance = self._days(z, labels)
        window = torch.from_numpy(last[:, None] + np.arange(-length + 1, 1))
        days, volatility, variance = days[window], volatility[window], variance[torch.from_numpy(last)]
        made = torch.empty(paths, bars, z.shape[1])
        for bar in range(bars):
            days[:, -1, -COUNT:] = regimes[:, bar]
            emission = self.network(days, volatility, last_only=True)
            day = emission.mean + (emission.loadings @ factor[:, bar, :, None])[..., 0] + emission.own * own[:, bar]
            made[:, bar] = day = day.clamp(-FURTHEST, FURTHEST)
            variance = self.view.next_variance(variance, day)
            today, log_volatility = self.view.day(day, variance)
            days = torch.cat([days[:, 1:], today[:, None]], dim=1)
            volatility = torch.cat([volatility[:, 1:], log_volatility[:, None]], dim=1)
        return np.exp(self.mean + self.scale * self.std * made.numpy().astype(np.float64))

    def _noise(self, paths: int, bars: int, rng: np.random.Generator, antithetic: bool) -> tuple[Tensor, Tensor]:
        """t draws with variance 1 of the factors (paths, bars, K) and the own parts (paths, bars, N), mixed together."""
        factors, nu = self.network.factors, self.nu
        normal = mirrored(rng.standard_normal((paths, bars, factors + len(self.mean))), antithetic)
        mixing = np.sqrt((nu - 2.0) / shared(rng.chisquare(nu, (paths, bars)), antithetic))
        noise = torch.from_numpy((normal * mixing[..., None]).astype(np.float32))
        return noise[..., :factors], noise[..., factors:]

    @property
    def nu(self) -> float:
        """Degrees of freedom."""
        return LEAST_NU + float(F.softplus(self.network.raw_nu.detach()))

    def _days(self, z: Array, labels: Array) -> tuple[Tensor, Tensor, Tensor]:
        """Of each row: what the network reads, log volatilities, variances. A day's regime is that of the next one."""
        days = torch.from_numpy(z)
        variance = self.view.variances(days)
        features, log_volatility = self.view.day(days, variance)
        features[:, -COUNT:] = torch.eye(COUNT)[torch.from_numpy(np.append(labels[1:], labels[-1]))]
        return features, log_volatility, variance

    def save(self, directory: Path) -> None:
        """Safetensors and JSON, no pickle."""
        arrays = {f"network.{name}": value.numpy() for name, value in self.network.state_dict().items()}
        arrays |= {"mean": self.mean, "std": self.std, "scale": self.scale, "z": self.z, "labels": self.labels}
        with replaced_directory(Path(directory)) as temporary:
            save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, temporary / ARRAYS)
            write_json(temporary / VALUES, asdict(self.config) | {"looks": self.looks, "chosen_step": self.chosen_step})

    @classmethod
    def load(cls, directory: Path) -> ReturnTransformer:
        """What `save` wrote."""
        arrays = load_file(Path(directory) / ARRAYS)
        values = json.loads((Path(directory) / VALUES).read_text(encoding="utf-8"))
        looks, chosen = [tuple(look) for look in values.pop("looks")], values.pop("chosen_step")
        config, plain = TransformerConfig(**values), {name: arrays[name] for name in ("mean", "std", "scale", "z", "labels")}
        view = FactorView.fit(plain["z"], min(config.factors, plain["z"].shape[1]))
        network = _new_network(config, view)
        weights = {
            name.removeprefix("network."): torch.from_numpy(a) for name, a in arrays.items() if name.startswith("network.")
        }
        network.load_state_dict(weights)
        return cls(config=config, network=network, view=view, looks=looks, chosen_step=chosen, **plain)


def _new_network(config: TransformerConfig, view: FactorView) -> ReturnNetwork:
    """Untrained; without a draw from the process's generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return ReturnNetwork(config, view.loadings, view.own)
