"""Arms against a reference: figures by hand, what is paired with what, and which luck an interval tells of."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from envs.errors import ConfigError, ShapeError
from rlplatform.evaluation.ablation import compare_arms, signed
from rlplatform.evaluation.ablation_plot import plot_ablation
from rlplatform.evaluation.ablation_report import TEST, VALIDATION, AblationResult
from rlplatform.evaluation.metrics import sharpe_ratio
from rlplatform.evaluation.significance import BootstrapConfig
from tests.evaluation.conftest import track_of

FAST = BootstrapConfig(resamples=300)


def market(bars=1000, seed=0):
    return 0.0003 + 0.01 * np.random.default_rng(seed).standard_normal(bars)


def arms_of(edges, own=0.001, bars=1000, seed=0):
    """Arm → its edge a bar for each seed; all runs share the market, and runs of one seed a noise of the seed's."""
    rng, shared = np.random.default_rng(seed + 100), market(bars, seed)
    noise = {number: own * rng.standard_normal(bars) for number in range(len(next(iter(edges.values()))))}
    return {
        arm: {number: track_of(shared + noise[number] + edge, f"{arm}-seed{number}") for number, edge in enumerate(of_arm)}
        for arm, of_arm in edges.items()
    }


def edge_of(edges, config=FAST, **given):
    return compare_arms(arms_of(edges, **given), "plain", config)["new"]


def test_the_figure_is_the_mean_over_seeds_of_differences_of_sharpe_ratios():
    up, down = np.tile([0.02, 0.0], 50), np.tile([0.01, -0.01], 50)  # mean ± 1 % a bar, so a difference by hand
    arms = {"plain": {7: track_of(down), 8: track_of(down)}, "new": {7: track_of(up), 8: track_of(down)}}
    edge = compare_arms(arms, "plain", FAST)["new"]
    own = math.sqrt(252) * 0.01 / (0.01 * math.sqrt(100 / 99))
    assert_allclose(edge.sharpes, [own, 0.0], atol=1e-9)
    assert_allclose(edge.differences, [own, 0.0], atol=1e-9)
    assert_allclose(edge.sharpe, own / 2)
    growth = 252 * (np.log1p(up) - np.log1p(down)).mean() / 2
    assert_allclose(edge.growth, growth)
    assert edge.seeds == (7, 8)


def test_an_edge_of_5_bp_a_day_with_every_seed_is_found_and_its_opposite_too():
    better = edge_of({"plain": (0, 0, 0), "new": (5e-4, 5e-4, 5e-4)})
    assert better.verdict == "better"
    assert better.growth_low > 0
    worse = edge_of({"plain": (0, 0, 0), "new": (-5e-4, -5e-4, -5e-4)})
    assert worse.verdict == "worse"
    assert worse.sentence.startswith("new is worse than plain: Sharpe −0.8")


def test_what_runs_of_one_seed_share_falls_away_and_pairing_the_wrong_seeds_brings_it_back():
    arms = arms_of({"plain": (0, 0, 0), "new": (1e-4, 1e-4, 1e-4)}, own=0.004)
    paired = compare_arms(arms, "plain", FAST)["new"]
    runs = list(arms["new"].values())
    crossed = compare_arms(arms | {"new": dict(enumerate([*runs[1:], runs[0]]))}, "plain", FAST)["new"]
    width = paired.growth_high - paired.growth_low
    assert width < 1e-3  # the same edge every day: no days' luck, no seeds' luck
    assert crossed.growth_high - crossed.growth_low > 30 * width
    assert paired.verdict == "better"
    assert crossed.verdict == "no difference shown"


def test_seeds_that_disagree_widen_the_interval_though_the_days_are_many():
    agree, quarrel = (edge_of({"plain": (0, 0, 0), "new": new}) for new in ((3e-4,) * 3, (15e-4, 3e-4, -9e-4)))
    assert_allclose(agree.growth, quarrel.growth, rtol=0.02)
    assert agree.verdict == "better"
    assert quarrel.verdict == "no difference shown"
    assert quarrel.growth_high - quarrel.growth_low > 0.2


def test_one_seed_alone_has_an_interval_of_its_days():
    edge = edge_of({"plain": (0,), "new": (5e-4,)})
    assert edge.verdict == "better"
    assert "by seed" not in edge.sentence


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_reference_and_the_arm_exchanged_give_the_mirror_image(seed):
    rng = np.random.default_rng(seed)
    arms = {name: {s: track_of(0.01 * rng.standard_normal(120)) for s in (0, 1)} for name in ("a", "b")}
    config = BootstrapConfig(resamples=100)
    one, other = compare_arms(arms, "a", config)["b"], compare_arms(arms, "b", config)["a"]
    assert_allclose([one.sharpe, one.sharpe_low, one.sharpe_high], [-other.sharpe, -other.sharpe_high, -other.sharpe_low])
    assert one.sharpe_low <= one.sharpe_high


def test_without_an_edge_the_interval_of_days_covers_zero_about_nineteen_times_in_twenty():
    covered = []
    for seed in range(25):
        rng, shared = np.random.default_rng(seed), market(250, seed)
        own = {s: track_of(shared + 0.003 * rng.standard_normal(250)) for s in (0, 1, 2)}
        edge = compare_arms({"plain": {s: track_of(shared) for s in own}, "new": own}, "plain", BootstrapConfig(resamples=100))
        covered.append(edge["new"].sharpe_low <= 0 <= edge["new"].sharpe_high)
    assert 0.88 <= np.mean(covered) <= 1.0


def test_a_ruined_policy_and_too_few_bars_have_no_interval():
    arms = arms_of({"plain": (0, 0), "new": (0, 0)})
    arms["new"][1] = track_of([-0.5, -1.0], ruined=True)
    edge = compare_arms(arms, "plain", FAST)["new"]
    assert math.isnan(edge.sharpe_low)
    assert edge.verdict == "no difference shown"
    assert edge.sentence.endswith("no interval (1000 bars, or a policy that was ruined).")
    assert json.dumps(edge.to_dict(), allow_nan=False)
    assert math.isnan(edge_of({"plain": (0,), "new": (0,)}, bars=10).sharpe_low)


def test_arms_that_cannot_be_paired_are_refused():
    arms = arms_of({"plain": (0, 0), "new": (0, 0)})
    with pytest.raises(ConfigError, match="expected one of the arms plain, new"):
        compare_arms(arms, "old")
    with pytest.raises(ConfigError, match=r"new has seeds \[0\]; plain has \[0, 1\]"):
        compare_arms(arms | {"new": {0: arms["new"][0]}}, "plain")
    with pytest.raises(ShapeError, match="judge all arms on the same dates"):
        compare_arms(arms | {"new": {0: arms["new"][0], 1: track_of(market(900))}}, "plain")


# The finding


@pytest.fixture(scope="module")
def result():
    edges = {"plain": (0, 0, 0), "gain": (8e-4,) * 3, "same": (1e-5, 0, -1e-5)}
    periods = {VALIDATION: arms_of(edges, own=0.002, bars=300, seed=1), TEST: arms_of(edges, own=0.002, bars=600, seed=2)}
    return AblationResult.of(periods, "plain", FAST, notes=("a note",))


def test_the_first_sentence_names_days_seeds_and_who_is_shown_to_differ(result):
    start, end = result.tracks[TEST]["plain"][0].period
    found = "gain shown to be better than plain; of these very trainings p < 0.001 that none grows faster (SPA)."
    assert result.sentence == f"{start} to {end}, 3 seed(s): {found}"
    assert result.num_trials == 9
    assert result.superiority.superior == ("gain",)


def test_table_and_data_hold_every_arm_of_both_periods(result):
    rows = result.rows()
    assert [(row["period"], row["arm"]) for row in rows][:3] == [("validation", n) for n in ("plain", "gain", "same")]
    assert [row["verdict"] for row in rows[3:]] == ["reference", "better", "no difference shown"]
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    track = result.tracks[TEST]["same"][2]
    assert content["sharpe"]["test"]["same"]["2"] == pytest.approx(sharpe_ratio(track.returns))
    text = result.to_markdown()
    assert text.startswith(result.sentence)
    assert text.count("| test |") == 3
    assert "- a note" in text


def test_on_a_planted_market_every_arm_has_its_share_of_the_known_optimum():
    doubled, lost = (track_of(np.append(first, np.zeros(19)), "a") for first in (1.0, -0.5))
    periods = {name: {"plain": {0: doubled}, "new": {0: lost}} for name in (VALIDATION, TEST)}
    result = AblationResult.of(periods, "plain", FAST, optimal_growth={TEST: math.log(4.0)})  # it grew to 4
    assert result.shares_of_optimum(TEST, "plain") == [pytest.approx(0.5)]  # log 2 of log 4
    assert result.shares_of_optimum(TEST, "new") == [pytest.approx(-0.5)]
    cells = [row.get("of optimum") for row in result.rows()]
    assert cells == [None, None, "50.0 %", "−50.0 %"]
    assert result.to_dict()["share_of_optimum"] == {TEST: {"plain": [pytest.approx(0.5)], "new": [pytest.approx(-0.5)]}}


def test_figures_of_the_test_are_means_over_seeds():
    fall, flat = (track_of(np.append(first, np.zeros(19)), "a") for first in (-0.2, 0.0))
    periods = {name: {"plain": {0: fall, 1: flat}, "new": {0: flat, 1: flat}} for name in (VALIDATION, TEST)}
    rows = AblationResult.of(periods, "plain", FAST).figures()
    assert [row["arm"] for row in rows] == ["plain", "new"]
    assert [row["max DD"] for row in rows] == ["−10.00 %", "0.00 %"]
    assert [row["CVaR 5 %"] for row in rows] == ["−10.00 %", "0.00 %"]


def test_one_arm_alone_is_no_ablation(result):
    alone = {period: {"plain": arms["plain"]} for period, arms in result.tracks.items()}
    with pytest.raises(ConfigError, match="plain alone; an ablation needs at least one arm more"):
        AblationResult.of(alone, "plain")


def test_the_figure_has_a_row_an_arm_and_the_finding_as_its_title(result):
    figure = plot_ablation(result)
    figure.savefig(io.BytesIO(), format="png")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["same", "gain"]
    assert "gain shown to be better than plain" in figure.texts[0].get_text().replace("\n", " ")
    assert sum(text.get_text().startswith("test ") for text in axes.texts) == 2


def test_differences_show_their_sign():
    assert [signed(0.123), signed(-0.123), signed(0.001), signed(math.nan)] == ["+0.12", "−0.12", "0.00", "–"]
