"""A gate over modes: densities by hand, what each mode may hold, and what leaves the room with a policy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from envs.errors import ConfigError
from envs.regime import ACTIONS, REGIMES
from rlplatform.models.actor_critic import ActorCritic
from rlplatform.models.distributions import Categorical
from rlplatform.models.ensemble import Ensemble
from rlplatform.models.heads import CategoricalHead, LogisticNormalHead, TanhNormalHead, head_for
from rlplatform.models.hierarchical import GateConfig, HierarchicalConfig
from rlplatform.models.hierarchical_head import HierarchicalHead, ModesConfig, PassiveConfig, ProbeConfig, gate_figures
from rlplatform.models.layout import ObservationLayout
from rlplatform.models.mlp import MLPConfig
from rlplatform.models.policy import Policy

HALF = ModesConfig(probe=ProbeConfig(exposure=0.5), passive=None)  # probe and aggressive
BOX = TanhNormalHead((-1.0,), (1.0,))
FOUR = LogisticNormalHead(4)
LEVERED = LogisticNormalHead(3, leverage=True)
PAIR = TanhNormalHead((-1.0, -1.0), (1.0, 1.0))
REGIME = CategoricalHead(16)
PLAIN = [REGIME, FOUR, LEVERED, PAIR]

every_space = pytest.mark.parametrize("plain", PLAIN, ids=["regimes", "simplex", "levered", "box"])


def drawn(head: HierarchicalHead, seed: int, *shape: int, spread: float = 2.0) -> torch.Tensor:
    """Parameters of distributions far from those of a fresh policy."""
    params = spread * torch.randn(*shape, head.num_params, generator=torch.Generator().manual_seed(seed))
    if head.num_log_stds:
        params[..., head.num_outputs :] = params[..., head.num_outputs :].clamp(-3.0, 1.0)
    return params


def forced(head: HierarchicalHead, mode: str, params: torch.Tensor) -> torch.Tensor:
    """The same, with a gate that is sure."""
    gate = torch.full((len(head.mode_names),), -60.0)
    gate[head.mode_names.index(mode)] = 60.0
    return torch.cat([gate.expand(*params.shape[:-1], -1), params[..., len(gate) :]], -1)


# ── densities ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_density_of_a_mixture_by_hand():
    # gate (¼, ¾); y ~ N(0, 1) in both; probe's box is half as wide, so at 0 its density is twice φ(0) = 0.39894
    head = HierarchicalHead(BOX, HALF)
    law = head.distribution(torch.tensor([[0.0, math.log(3.0), 0.0, 0.0, 0.0, 0.0]]))
    at_zero, outside = law.log_prob(torch.tensor([[0.0]])).exp(), law.log_prob(torch.tensor([[0.8]])).exp()
    assert_close(at_zero, torch.tensor([0.25 * 0.79788 + 0.75 * 0.39894]), atol=1e-4, rtol=0)
    aggressive_alone = 0.39894 * math.exp(-0.5 * math.atanh(0.8) ** 2) / (1 - 0.8**2)
    assert_close(outside, torch.tensor([0.75 * aggressive_alone]), atol=1e-4, rtol=0)


def test_the_density_of_a_shrunk_simplex_by_hand():
    # one asset, e = ½, y ~ N(0, 1): w = ½ σ(y); at w = ¼ density φ(0) / (½ · ½ · ½) = 8 · 0.39894; with e = 1 φ(y)/(w(1 − w))
    head = HierarchicalHead(LogisticNormalHead(2), HALF)
    sure = forced(head, "probe", torch.zeros(1, head.num_params))
    density = head.distribution(sure).log_prob(torch.tensor([[0.75, 0.25]])).exp()
    assert_close(density, torch.tensor([8 * 0.398942]), atol=1e-4, rtol=0)
    assert head.distribution(sure).log_prob(torch.tensor([[0.4, 0.6]])) < -50  # out of reach; aggressive alone, at e^−120


@pytest.mark.parametrize("modes", [HALF, ModesConfig(), ModesConfig(probe=None)], ids=["probe", "all", "passive"])
def test_a_density_holds_all_of_the_probability(modes):
    head = HierarchicalHead(BOX, modes)
    grid = torch.linspace(-1, 1, 40_003, dtype=torch.float64)[1:-1]
    for seed in range(3):
        law = head.distribution(drawn(head, seed, spread=0.7).double().expand(len(grid), -1))
        total = torch.trapezoid(law.log_prob(grid[:, None]).exp(), grid)
        assert_close(total, torch.tensor(1.0, dtype=torch.float64), atol=5e-3, rtol=0)


@pytest.mark.parametrize("base", [BOX, LogisticNormalHead(2)], ids=["box", "simplex"])
def test_samples_follow_the_density(base):
    head = HierarchicalHead(base, HALF)
    law = head.distribution(drawn(head, 4, spread=0.7).expand(40_000, -1))
    risky = law.sample(torch.Generator().manual_seed(0))[:, -1]
    low, high = (float(x) for x in (torch.tensor(head.space().low[-1]), torch.tensor(head.space().high[-1])))
    grid = torch.linspace(low, high, 20_003)[1:-1]
    actions = grid[:, None] if base is BOX else torch.stack([1 - grid, grid], -1)
    density = head.distribution(drawn(head, 4, spread=0.7).expand(len(grid), -1)).log_prob(actions).exp()
    for edge in (0.2, 0.45, 0.6):
        below = torch.trapezoid(density[grid < edge], grid[grid < edge])
        assert abs((risky < edge).float().mean() - below) < 0.015


@every_space
def test_the_gate_says_how_often_each_mode_acts(plain):
    head = HierarchicalHead(plain, ModesConfig(probe=None))
    params = torch.zeros(20_000, head.num_params)
    params[:, :2] = torch.tensor([0.6, 0.4]).log()
    law = head.distribution(params)
    assert_close(law.mode_probs[0], torch.tensor([0.6, 0.4]))
    passive = head.distribution(forced(head, "passive", params[:1])).mode()
    sampled = law.sample(torch.Generator().manual_seed(1))
    near = (sampled == passive) if plain is REGIME else (sampled - passive).abs().amax(-1) < 0.08 + 0.12 * (plain is PAIR)
    by_aggressive = 0.4 * {REGIME: 1 / 16, PAIR: 0.026}.get(plain, 0.2)  # comes near now and then
    assert 0.59 < near.float().mean() < 0.61 + by_aggressive


@every_space
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_every_action_has_a_finite_density_and_gradient(plain, seed):
    head = HierarchicalHead(plain, ModesConfig())
    params = drawn(head, seed, 6, spread=5.0).requires_grad_()
    if plain is REGIME:
        actions = torch.arange(6)
    elif plain is PAIR:
        actions = torch.tensor([[-1.0, 1.0], [1.0, 1.0], [0.0, 0.0], [0.125, -0.125], [0.1250001, 0.0], [1e-9, 0.5]])
    else:
        corners = torch.cat([torch.eye(plain.num_weights), torch.full((6 - plain.num_weights, plain.num_weights), 0.25)])
        corners = corners / corners.sum(-1, keepdim=True)
        actions = torch.cat([corners, torch.ones(6, int(plain.leverage))], -1)
    law = head.distribution(params)
    log_prob = law.log_prob(actions)
    (log_prob + law.entropy()).sum().backward()
    assert torch.isfinite(log_prob).all()
    assert torch.isfinite(params.grad).all()


def test_a_probe_at_the_edge_of_its_reach_is_read_back_although_rounding_has_taken_its_cash():
    head = HierarchicalHead(FOUR, HALF)
    params = torch.zeros(500, head.num_params)
    params[:, 2:5] = 15.0  # u₀ = 1e-7, and ½ + ½ u₀ is often ½
    law = head.distribution(forced(head, "probe", params))
    sampled = law.sample(torch.Generator().manual_seed(0))
    assert (sampled[:, 0] == 0.5).any()
    assert (law.log_prob(sampled) > -20).all()


@every_space
def test_a_sample_has_the_density_of_the_mode_that_drew_it_or_more(plain):
    head = HierarchicalHead(plain, ModesConfig())
    for mode in head.mode_names:
        params = forced(head, mode, drawn(head, 3, 500, spread=1.0))
        sampled = head.distribution(params).sample(torch.Generator().manual_seed(2))
        assert (head.distribution(params).log_prob(sampled) > -40).all(), mode  # not out of its own reach by rounding


# ── entropy and divergence ───────────────────────────────────────────────────────────────────────────────────────────


def test_entropy_and_divergence_by_hand():
    head = HierarchicalHead(BOX, HALF)
    even = head.distribution(torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 1.0]]))
    normal = 0.5 * math.log(2 * math.pi * math.e)
    assert_close(even.entropy(), torch.tensor([math.log(2) + normal + 0.5 * 1.0]))  # log σ = 0 and 1
    skewed = head.distribution(torch.tensor([[0.0, math.log(3.0), 0.0, 2.0, 0.0, 1.0]]))
    gates = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert_close(even.kl(skewed), torch.tensor([gates + 0.5 * 0.5 * (2.0 / math.e) ** 2]))


@pytest.mark.parametrize("plain", [BOX, FOUR], ids=["box", "simplex"])
def test_divergence_and_entropy_of_weights_are_upper_bounds(plain):
    head = HierarchicalHead(plain, ModesConfig())
    for seed in range(4):
        ours, theirs = (head.distribution(drawn(head, s, spread=0.7).expand(20_000, -1)) for s in (seed, seed + 50))
        actions = ours.sample(torch.Generator().manual_seed(seed))
        true = (ours.log_prob(actions) - theirs.log_prob(actions)).mean()
        assert -0.02 < true < ours.kl(theirs)[0] + 0.05
        # of y, as everywhere in this house: the density before the map of the widest mode
        spread = ours.modes.entropy()[0]
        assert ours.entropy()[0] <= math.log(3) + spread.max() + 1e-5


def test_an_entropy_bonus_does_not_push_the_gate_to_the_widest_mode():
    head = HierarchicalHead(BOX, HALF)
    params = torch.tensor([[0.0, 0.0, 0.0, 0.0, -2.0, 2.0]], requires_grad=True)
    head.distribution(params).entropy().sum().backward()
    assert_close(params.grad, torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.5, 0.5]]))


def test_numbered_actions_are_a_categorical_whose_entropy_and_divergence_are_exact():
    head = HierarchicalHead(REGIME, ModesConfig())
    ours, theirs = head.distribution(drawn(head, 0, 5)), head.distribution(drawn(head, 1, 5))
    parts = [head.distribution(forced(head, mode, drawn(head, 0, 5))).log_probs.exp() for mode in head.mode_names]
    mixed = sum(ours.mode_probs[:, [m]] * part for m, part in enumerate(parts))
    assert_close(ours.log_probs.exp(), mixed)
    assert_close(mixed.sum(-1), torch.ones(5))
    assert_close(ours.entropy(), Categorical(mixed.log()).entropy())
    assert_close(ours.kl(theirs), Categorical(mixed.log()).kl(Categorical(theirs.log_probs)))


# ── what a mode means ────────────────────────────────────────────────────────────────────────────────────────────────


@every_space
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), exposure=st.floats(0.01, 0.99))
def test_probing_never_holds_more_than_its_exposure(plain, seed, exposure):
    head = HierarchicalHead(plain, ModesConfig(probe=ProbeConfig(exposure=exposure)))
    law = head.distribution(forced(head, "probe", drawn(head, seed, 50, spread=4.0)))
    for action in (law.sample(torch.Generator().manual_seed(seed)), law.mode()):
        if plain is REGIME:
            assert (action > 0).all()  # HOLD may hold anything
            held = torch.tensor([sum(list(REGIMES.values())[int(a) - 1][1:]) for a in action])
        elif plain is PAIR:
            held = action.abs().sum(-1)
        else:
            held = action[..., 1 : plain.num_weights].sum(-1)
            assert_close(action[..., : plain.num_weights].sum(-1), torch.ones(50), atol=1e-5, rtol=0)
        assert (held <= exposure + 1e-5).all()


def test_passive_holds_its_benchmark_whatever_is_seen():
    def preferred(plain, benchmark):
        head = HierarchicalHead(plain, ModesConfig(passive=PassiveConfig(benchmark=benchmark)))
        return head.distribution(forced(head, "passive", drawn(head, 0, 7))).mode()

    assert_close(preferred(FOUR, "auto"), torch.full((7, 4), 0.25))
    assert_close(preferred(FOUR, "cash"), torch.tensor([0.99, 0.01 / 3, 0.01 / 3, 0.01 / 3]).expand(7, -1))
    assert_close(preferred(LEVERED, "auto")[:, 0], torch.full((7,), 0.99))
    assert_close(preferred(PAIR, "auto"), torch.zeros(7, 2))
    for benchmark, action in (("auto", "HOLD"), ("equal_weight", "EQUAL_WEIGHT"), ("cash", "ALL_CASH")):
        assert (preferred(REGIME, benchmark) == ACTIONS.index(action)).all()


@every_space
def test_the_preferred_action_is_that_of_the_most_probable_mode(plain):
    head = HierarchicalHead(plain, ModesConfig())
    params = drawn(head, 8, 40)
    law = head.distribution(params)
    for row, mode in enumerate(law.mode_probs.argmax(-1)):
        alone = head.distribution(forced(head, head.mode_names[mode], params[row : row + 1]))
        assert_close(law.mode()[row], alone.mode()[0])


def test_the_gradient_of_the_preferred_weights_reaches_the_gate_and_every_actor():
    head = HierarchicalHead(FOUR, ModesConfig())
    params = drawn(head, 2, 3, spread=1.0).requires_grad_()
    mode = head.distribution(params).mode()
    assert torch.equal(mode.detach(), head.distribution(params.detach()).mode())
    mode[:, 0].sum().backward()
    assert (params.grad[:, : head.num_outputs].abs() > 1e-6).all()


def test_the_gate_reads_its_columns_alone():
    names = tuple("abcd")
    config = HierarchicalConfig(gate=GateConfig(columns=("c", "a"))).bound_to(ObservationLayout(("X",), names))
    assert config.gate_places == (2, 0)
    network = ActorCritic(config, 4, FOUR)
    seen = torch.randn(3, 5, 4)
    other = seen.clone()
    other[..., [1, 3]] += 1.0
    ours, theirs = (network(obs, network.initial_state(3)).params for obs in (seen, other))
    assert torch.equal(network.head.gate(ours), network.head.gate(theirs))
    assert not torch.allclose(ours[..., 3:6], theirs[..., 3:6])


def test_gate_figures_are_means_over_a_batch():
    head = HierarchicalHead(FOUR, ModesConfig())
    params = torch.zeros(2, 1, head.num_params)
    params[0, 0, :3], params[1, 0, :3] = torch.tensor([1.0, 1e-9, 1e-9]).log(), torch.zeros(3)
    figures = gate_figures(head, params)
    assert_close(figures["mode_share_probe"], torch.tensor(2 / 3))
    assert_close(figures["mode_share_aggressive"], torch.tensor(1 / 6))
    assert_close(figures["gate_entropy"], torch.tensor(math.log(3) / 2), atol=1e-6, rtol=0)


# ── policies ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def policy(plain=FOUR, config=None, seed=0) -> Policy:
    torch.manual_seed(seed)
    return Policy(ActorCritic(config or HierarchicalConfig(hidden_size=8, embedding_size=8), 4, plain), None, "Portfolio-v0")


@every_space
def test_a_saved_policy_acts_the_same_and_says_what_its_gate_thinks(plain, tmp_path):
    config = HierarchicalConfig(
        hidden_size=8, embedding_size=8, gate=GateConfig(columns=("d",)), modes=ModesConfig(probe=ProbeConfig(exposure=0.3))
    ).bound_to(ObservationLayout(("X",), tuple("abcd")))
    ours = policy(plain, config)
    theirs = Policy.load(ours.save(tmp_path))
    assert theirs.config == config
    assert theirs.head == ours.head
    assert theirs.mode_names == ("probe", "passive", "aggressive")
    obs = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    ours_said, theirs_said = (each.act(obs, each.initial_state(6)) for each in (ours, theirs))
    np.testing.assert_array_equal(ours_said[0], theirs_said[0])
    np.testing.assert_allclose(theirs_said[2]["gate"].sum(-1), 1.0, rtol=1e-6)
    assert head_for(ours.head.space()) == ours.head.plain


@every_space
def test_an_ensemble_takes_policies_with_modes_and_without(plain):
    flat = Policy(ActorCritic(MLPConfig(layers=(8,)), 4, plain), None, "Portfolio-v0")
    together = Ensemble([policy(plain, seed=1), flat, policy(plain, seed=2)])
    obs = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    action, _, _ = together.act(obs, together.initial_state(6))
    if plain is not REGIME:
        members = [member.act(obs, member.initial_state(6))[0] for member in together.members]
        if plain is not LEVERED:
            np.testing.assert_allclose(action, np.mean(members, 0), atol=2e-5)
        assert together.distribution(obs, together.initial_state(6))[0].sample().shape == action.shape


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ProbeConfig(exposure=1.0), r"model.modes.probe.exposure = 1.0; expected a fraction in \(0, 1\)"),
        (lambda: PassiveConfig(benchmark="spy"), r"model.modes.passive.benchmark = 'spy'; expected one of auto, hold"),
        (lambda: PassiveConfig(log_std=1.0), r"model.modes.passive.log_std = 1.0; expected a logarithm"),
        (lambda: ModesConfig(probe=None, passive=None), r"only aggressive is left, and one mode is none"),
        (lambda: GateConfig(columns="vix"), r"model.gate.columns = 'vix'; expected a list, such as \[vix\]"),
        (lambda: GateConfig(columns=("a", "a")), r"model.gate.columns names 'a' 2 times"),
        (lambda: GateConfig(columns=("vox",)).places(("vix", "b")), r"has no entry 'vox'. Did you mean vix\? It has vix, b;"),
        (lambda: HierarchicalConfig(gate=GateConfig(columns=("a",))).encoder(4), r"must be found in the observation first"),
        (lambda: HierarchicalConfig(memory="lstm"), r"model.memory = 'lstm'; expected one of gru, none"),
        (lambda: HierarchicalConfig(actor_layers=(0,)), r"model.actor_layers = \[0\]; expected widths"),
        (lambda: HierarchicalConfig().action_head(CategoricalHead(3)), r"these are 3 actions. Use kind: gru or mlp"),
        (
            lambda: HierarchicalHead(FOUR, ModesConfig(passive=PassiveConfig(benchmark="hold"))),
            r"benchmark = 'hold': what is held has no place among weights in Simplex\(4\). Use equal_weight or cash",
        ),
        (
            lambda: HierarchicalHead(PAIR, ModesConfig(passive=PassiveConfig(benchmark="equal_weight"))),
            r"nor equal weights have a place among levered or signed weights in Box.* Use cash",
        ),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
