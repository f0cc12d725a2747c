"""The page: one file, no network, no scripts, everything escaped, and figures that a reader can check."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from numpy.testing import assert_allclose

from envs.terms import CapsConfig, CostConfig, FinancingConfig
from rlplatform.evaluation.attribution import attribute
from rlplatform.evaluation.backtest import run_targets
from rlplatform.evaluation.deflated import Trials, judge_sharpe
from rlplatform.evaluation.drawdowns import downside
from rlplatform.evaluation.html_report import (
    Findings,
    GuardsFindings,
    SeedsFindings,
    WalkFindings,
    render_html,
    write_html_report,
)
from rlplatform.evaluation.html_report_figures import inline_figure, plot_rolling_sharpe, rolling_sharpe
from rlplatform.evaluation.html_report_statistics import evidence_rows
from rlplatform.evaluation.html_report_style import PALETTE
from rlplatform.evaluation.html_report_tables import heat_map, monthly_returns, table
from rlplatform.evaluation.overfitting import backtest_overfitting
from rlplatform.evaluation.robustness_plots import fold_rows, plot_stress
from rlplatform.evaluation.seed_spread import SeedSpread
from rlplatform.evaluation.shapley import Explanation
from rlplatform.evaluation.significance import BootstrapConfig
from rlplatform.evaluation.stress import StressConfig, StressRow
from rlplatform.evaluation.stress_findings import StressFindings
from rlplatform.evaluation.verdict import judge
from rlplatform.evaluation.windows import hold_out
from tests.evaluation.conftest import dates, random_tape, track_of

BARS = 150
RNG = np.random.default_rng(0)
MARKET = 0.01 * RNG.standard_normal(BARS)
HOSTILE = "<script>alert('&\"')</script>"
VOID = {"meta", "br", "img", "link", "path", "use", "rect"}


def verdict(name="PPO", returns=None, **given):
    returns = MARKET + 0.002 * RNG.standard_normal(BARS) if returns is None else returns
    policy = track_of(returns, name, actions=np.arange(BARS) % 3, weights=np.full((BARS, 1), 0.5))
    baselines = [track_of(MARKET, "ALL_SPY"), track_of(np.zeros(BARS), "CASH")]
    return judge(policy, baselines, bootstrap=BootstrapConfig(resamples=100), **given)


def findings(found=None, **given):
    found = found or verdict(
        learning_curve=[{"env_steps": i, "episode_return_mean": i, "validation_sharpe": i} for i in range(3)]
    )
    regimes = np.arange(BARS) // 50
    parts = {
        "hold_out": hold_out(found.policy, found.baselines[0], regimes=regimes),
        "downside": downside(found.policy),
        "evidence": judge_sharpe(found.policy.returns, Trials(count=7)),
        "regimes": regimes,
        "walk": WalkFindings(
            seed=1, tracks={0: found.baselines[0], 1: found.policy}, folds=FOLDS, sentence="Median of 2 seeds."
        ),
        "seeds": SeedsFindings(
            names=("seed 0", "seed 1"), spread={"sharpe": SeedSpread.of([0.5, 1.5]), "cagr": SeedSpread.of([0.1, 0.2])}, own={}
        ),
        "overfitting": backtest_overfitting(0.01 * RNG.standard_normal((64, 5)), blocks=4),
        "decisions": decisions(),
        "result": attribute(*traded()),
        "stress": StressFindings(policy="PPO", benchmark="ALL_SPY", rows=STRESS, config=StressConfig(), notes=("A question.",)),
        "guards": GuardsFindings(lines=("Guards held.",), rows=({"part": "whole period", "turnover": "1 %"},)),
        "off_policy": {"estimates": [{"name": "dr", "value": 0.5, "low": 0.25, "high": None}], "truth": {"value": 1.0}},
        "manifest": {"run": "r"},
        "config": "name: r",
    }
    return Findings(**({"run": "run-1", "verdict": found} | parts | given))


FOLDS = tuple(
    {"fold": fold, "seed": seed, "start": start, "end": end, "total_return": 0.1 * seed, "sharpe": None if seed else 1.25}
    | {"seam_turnover": 0.5, "seam_cost": 0.0}
    for fold, start, end in ((0, "2020-01-01", "2020-03-02"), (1, "2020-03-02", "2020-07-29"))
    for seed in (0, 1)
)
STRESS = tuple(
    StressRow(
        scenario=kind, player=player, paths=5, median_return=0.01, return_5=low, worst_return=low - 0.05,
        median_drawdown=-0.1, worst_drawdown=-0.4, ruined=0.2,
    )
    for kind, low in (("calm", -0.02), ("shock_2008", -0.3))
    for player in ("PPO", "ALL_SPY")
)  # fmt: skip


def decisions():
    rng = np.random.default_rng(0)
    effects = rng.normal(0, 0.05, (30, 2, 2))
    return Explanation(
        groups=("volatility", "own weights"), columns={"volatility": 2, "own weights": 3}, symbols=("A", "B"),
        dates=dates(30), effects=effects, base=np.full((30, 2), 0.3), weights=0.3 + effects.sum(1), coalitions=4,
        exact=True, sampling_error=0.0, baseline="mean of training",
    )  # fmt: skip


def traded():
    tape, costs, financing = random_tape(rows=60, assets=15), CostConfig(), FinancingConfig()
    track = run_targets("t", np.full((60, 15), 1 / 15), tape, costs, financing, CapsConfig())
    return track, tape, costs, financing


@pytest.fixture(scope="module")
def page():
    return render_html(findings())


class _Tags(HTMLParser):
    """Tags left open, and every (tag, attribute, value)."""

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.seen = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen += [(tag, *pair) for pair in attrs] or [(tag, "", "")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def parsed(text):
    parser = _Tags()
    parser.feed(text)
    return parser


def test_every_tag_is_closed_and_no_id_stands_twice(page):
    tags = parsed(page)
    assert (tags.open, tags.wrong) == ([], [])
    ids = [value for _, name, value in tags.seen if name == "id"]
    assert len(ids) == len(set(ids))


def test_the_page_fetches_nothing_and_runs_nothing(page):
    tags = parsed(page)
    assert not {"script", "link", "iframe", "img"} & {tag for tag, *_ in tags.seen}
    assert all(value.startswith("#") for _, name, value in tags.seen if name in ("src", "href", "xlink:href"))
    assert not [name for _, name, _ in tags.seen if name.startswith("on")]
    assert not re.search(r"url\((?!#)|@import", page)
    assert "default-src 'none'" in page


def test_links_lead_to_sections_that_are_there(page):
    tags = parsed(page)
    ids = {value for _, name, value in tags.seen if name == "id"}
    links = [value[1:] for tag, name, value in tags.seen if tag == "a" and name == "href"]
    assert len(links) >= 10
    assert set(links) <= ids


def test_names_that_look_like_markup_are_text():
    found = verdict(HOSTILE, notes=[HOSTILE])
    left_out = {"left_out": (HOSTILE,), "config": HOSTILE, "manifest": {HOSTILE: HOSTILE}}
    hostile = {"run": HOSTILE, "guards": GuardsFindings(lines=(HOSTILE,), rows=({HOSTILE: HOSTILE},))} | left_out
    text = render_html(findings(found, **hostile))
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 10
    assert not [name for _, name, _ in parsed(text).seen if name.startswith("on")]


def test_figures_take_their_colours_from_the_page_so_that_they_read_on_dark(page):
    body = page[page.index("</style>") :]
    assert set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", body)) == set()
    used = set(re.findall(r"var\(--([\w-]+)\)", page)) - {"share"}
    assert used <= set(PALETTE)
    for name in used:
        assert page.count(f"--{name}: #") == 2  # light and dark


def test_text_stands_out_from_the_page_in_both_schemes():
    """WCAG's contrast of small text, 4.5."""
    for name in ("ink", "muted", "policy", "gain", "loss", "line-0", "line-1", "line-2", "line-3"):
        for side in (0, 1):
            least = 3.0 if name.startswith("line") else 4.4
            assert contrast(PALETTE[name][side], PALETTE["page"][side]) > least, (name, side)


def contrast(one, other):
    levels = sorted((luminance(one), luminance(other)))
    return (levels[1] + 0.05) / (levels[0] + 0.05)


def luminance(color):
    parts = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return float(np.where(parts <= 0.03928, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])


def test_the_headline_is_one_sentence_with_its_confidence():
    better = findings(verdict(returns=MARKET + 0.003 + 1e-4 * RNG.standard_normal(BARS)))
    worse = findings(verdict(returns=MARKET - 0.003 + 1e-4 * RNG.standard_normal(BARS)))
    assert better.headline.startswith("PPO beats ALL_SPY: growth differs by +")
    assert worse.headline.startswith("PPO loses to ALL_SPY: growth differs by −")
    assert findings().headline.startswith("No edge shown: PPO against ALL_SPY")
    assert better.headline.endswith("with 95 % confidence.")


def test_a_ruined_policy_still_has_a_page():
    found = verdict(returns=np.r_[np.full(BARS - 1, 0.001), -1.0])
    ruined = judge(
        track_of(found.policy.returns, "PPO", ruined=True, weights=np.full((BARS, 1), 0.5)),
        found.baselines,
        bootstrap=BootstrapConfig(resamples=100),
    )
    text = render_html(Findings(run="r", verdict=ruined))
    assert "PPO was ruined" in text
    assert "Hold-out windows" not in text


def test_a_section_without_findings_is_left_out(page):
    bare = render_html(Findings(run="r", verdict=verdict(), left_out=("costs: no volume.",)))
    for heading in ("Hold-out windows", "Guards", "Off-policy estimates", "Learning", "What ran"):
        assert f">{heading}</h2>" in page
        assert f">{heading}</h2>" not in bare
    assert "Left out: costs: no volume." in bare


def test_months_compound_their_bars():
    """January has two returns of 10 %, February one of −50 %."""
    days = np.array(["2020-01-30", "2020-01-31", "2020-01-31T12", "2020-02-03"], dtype="datetime64[ns]")
    track = track_of([0.1, 0.1, -0.5], dates=days)
    months = monthly_returns(track)
    assert_allclose([months[2020][1], months[2020][2]], [0.21, -0.5], rtol=1e-12)
    text = heat_map(track)
    assert ">+21.0<" in text
    assert ">−50.0<" in text
    assert ">−39.5<" in text  # the year: 1.21 · 0.5 − 1


def test_all_months_together_are_the_whole_return():
    track = track_of(MARKET)
    product = np.prod([1 + value for months in monthly_returns(track).values() for value in months.values()])
    assert_allclose(product, track.wealth[-1], rtol=1e-12)


def test_the_rolling_sharpe_of_a_window_is_the_sharpe_of_its_bars():
    """Returns 1 %, 3 %: mean 2 %, standard deviation √2 %; a year of one bar."""
    assert_allclose(rolling_sharpe(np.array([0.01, 0.03, 0.01]), 2, 1), [2 / np.sqrt(2)] * 2)


def test_a_figures_title_is_its_caption_and_its_name_for_screen_readers():
    policy, market = track_of(MARKET, "A&B"), track_of(-MARKET, "ALL_SPY")
    text = inline_figure("rolling", lambda: plot_rolling_sharpe(policy, market, 50))
    caption = re.search(r"<strong>(.*?)</strong>", text)[1]
    assert "A&amp;B" in caption
    assert f'aria-label="{caption}"' in text
    assert text.count(caption) == 2  # not drawn once more inside the picture


def test_the_same_figure_is_the_same_text():
    policy, market = track_of(MARKET, "A"), track_of(-MARKET, "B")
    one, two = (inline_figure("x", lambda: plot_rolling_sharpe(policy, market, 50)) for _ in range(2))
    assert one == two


def test_keys_become_words_and_names_stay():
    text = table([{"max_drawdown": "1", "growth over EQUAL_WEIGHT": None}])
    assert ">Max drawdown<" in text
    assert ">Growth over EQUAL_WEIGHT<" in text
    assert "–" in text


def test_luck_has_a_row_only_where_something_was_chosen():
    returns = MARKET + 0.001
    names = {count: [row[0] for row in evidence_rows(judge_sharpe(returns, Trials(count=count)))] for count in (1, 7)}
    assert "Luck's best Sharpe" not in names[1]
    assert "Luck's best Sharpe" in names[7]


def test_the_file_is_the_page_and_replaces_the_one_before(tmp_path, page):
    path = write_html_report(tmp_path / "report", Findings(run="run-before", verdict=verdict()))
    assert "run-before" in path.read_text(encoding="utf-8")
    write_html_report(tmp_path / "report", findings(manifest={"deep": [1, {"a": None}]}))
    text = path.read_text(encoding="utf-8")
    assert "run-before" not in text
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    assert json.dumps({"deep": [1, {"a": None}]}, indent=2).replace('"', "&quot;") in text


def test_twenty_years_with_thirty_baselines_stay_under_three_megabytes():
    bars, rng = 5_000, np.random.default_rng(1)
    tracks = [track_of(0.01 * rng.standard_normal(bars), f"B{i}") for i in range(29)] + [
        track_of(0.01 * rng.standard_normal(bars), "ALL_SPY")
    ]
    policy = track_of(0.01 * rng.standard_normal(bars), "PPO", weights=rng.random((bars, 1)))
    found = judge(policy, tracks, bootstrap=BootstrapConfig(resamples=100), main_names=["B0", "B1"])
    text = render_html(Findings(run="r", verdict=found, benchmark="B0", hold_out=hold_out(policy, tracks[0])))
    assert len(text.encode()) < 3_000_000


def test_folds_show_the_judged_seed_first_and_a_dash_after_ruin():
    walk = findings().walk
    rows = fold_rows(walk)
    assert [row["fold"] for row in rows] == ["0", "1"]
    assert (rows[0]["return, seed 1"], rows[0]["return, seed 0"]) == ("+10.0 %", "0.0 %")
    assert (rows[0]["Sharpe"], rows[0]["turnover at the seam"]) == ("–", "50 %")
    gone = WalkFindings(seed=1, tracks=walk.tracks, folds=[r for r in FOLDS if (r["fold"], r["seed"]) != (1, 1)], sentence="")
    assert fold_rows(gone)[1]["return, seed 1"] == "–"


def test_the_page_says_what_moved_the_policy_and_what_stress_took(page):
    text = re.sub(r"\s+", " ", page.replace("\u00a0", " "))
    assert "Median of 2 seeds." in text
    assert "Seed 1, the median one, is judged on the rest of this page" in text
    assert ">Sharpe ratio</td><td>1.00</td><td>0.50</td><td>1.50</td>" in text
    assert "Probability of overfitting" in text
    assert "all 4 coalitions; baseline: mean of training" in text
    assert "4 smaller ones are left out" in text  # 15 assets and their sum in 12 rows
    assert "On the worst of 10 paths PPO ends −35.0 % (shock_2008)" in text
    assert "ruined on 2 of them" in text


def test_the_figure_of_stress_counts_where_bad_paths_lost_less():
    better = [row if row.player == "PPO" else StressRow(**row.to_dict() | {"return_5": -0.5}) for row in STRESS]
    found = StressFindings(policy="PPO", benchmark="ALL_SPY", rows=tuple(better), config=StressConfig())
    title = plot_stress(found).texts[0].get_text().replace("\n", " ")
    assert title.startswith("In 2 of 2 kinds of scenario, PPO's bad paths lost less")


def test_on_a_phone_bars_start_at_their_names_and_time_at_its_end(page):
    starts = page.count('<div class="wide start" tabindex="0">')
    assert starts == 3  # effects, contributions, stress
    assert page.count('<div class="wide" tabindex="0">') >= 5
