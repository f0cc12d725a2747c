"""`rlplatform benchmark`: entries of any origin on the same days and costs, and mistakes told in one line."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from envs.errors import ConfigError
from envs.terms import CapsConfig
from rlplatform.data import load_prices
from rlplatform.evaluation.benchmark_table import BenchmarkEntry, judge_entries
from rlplatform.evaluation.deflated import Trials
from rlplatform.evaluation.significance import BootstrapConfig
from rlplatform.experiments.benchmarking import load_bench, run_bench
from rlplatform.experiments.scoreboard import make_scoreboard
from rlplatform.experiments.weights_file import read_weights
from tests.conftest import REPOSITORY
from tests.evaluation.conftest import random_tape, track_of
from tests.experiments.untrained import untrained_run

QUICK = BootstrapConfig(resamples=200)
BENCH = """\
name: bench
data: {{source: synthetic, market: momentum, bars: 1200}}
period: [2003-07-01, 2004-06-30]
against: EQUAL_WEIGHT
costs: {{proportional_bps: {bps}}}
bootstrap: {{resamples: 200}}
gate: {gate}
results_dir: {results}
policies:
- {{kind: baseline, name: EQUAL_WEIGHT}}
- {{kind: run, path: {run}, name: ours}}
- {{kind: weights, name: other, path: {csv}, trials: 12}}
"""


@pytest.fixture(scope="module")
def run(small_yaml, tmp_path_factory):
    return untrained_run(small_yaml, tmp_path_factory.mktemp("results"))


@pytest.fixture
def bench(run, tmp_path):
    """The benchmark's file and its CSV: the other system holds half the asset every day."""
    prices = load_prices(run.config().data).between("2003-07-01", "2004-06-30")
    frame = pd.DataFrame({"date": prices.dates.astype("datetime64[D]"), prices.symbols[0]: 0.5})
    csv, path = tmp_path / "other.csv", tmp_path / "bench.yaml"
    frame.to_csv(csv, index=False)

    def write(bps=2, gate="{}", **changes):
        text = BENCH.format(run=run.path, csv=csv, results=tmp_path / "out", bps=bps, gate=gate)
        for old, new in changes.values():
            assert old in text
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_each_entry_is_replayed_on_the_same_days_with_the_same_costs(run, bench):
    table = run_bench(load_bench(bench()))
    own = run.manifest()["test"]
    ours, other, equal = (table.table.metrics[name] for name in ("ours", "other", "EQUAL_WEIGHT"))
    assert_allclose(ours.total_return, own["total_return"], rtol=1e-9)  # its own costs are 2 bp too
    assert_allclose(other.volatility, equal.volatility / 2, rtol=0.01)  # half of one asset
    assert len({len(entry.track) for entry in table.entries}) == 1
    assert (table.evidence["other"].trials, table.evidence["ours"].trials) == (12, 2)
    assert set(table.gates) == {"ours", "other"}
    assert set(table.edges) == {"ours", "other"}


def test_dearer_costs_hit_everyone_alike(bench):
    cheap, dear = (run_bench(load_bench(bench(bps=bps))) for bps in (1, 100))
    for name in ("ours", "EQUAL_WEIGHT", "other"):
        assert dear.table.metrics[name].total_return < cheap.table.metrics[name].total_return
    assert "ours was trained under other costs or financing." in dear.to_dict()["notes"]


def test_days_that_training_saw_are_said_in_the_sentence(bench):
    table = run_bench(load_bench(bench(period=("period: [2003-07-01", "period: [2003-05-01"), csv=("- {kind: weights", "#"))))
    assert [entry.in_sample for entry in table.entries] == [False, True]
    assert "IN SAMPLE: training or validation of ours saw some of these days" in table.sentence


def test_a_policy_directory_stands_for_its_run(run, bench):
    table = run_bench(load_bench(bench(path=(f"path: {run.path}, name: ours", f"path: {run.policy}"))))
    assert table.entries[1].name == run.name


def test_the_command_prints_writes_and_enters_the_scoreboard(bench, typed, tmp_path):
    code, out, err = typed("benchmark", bench())
    assert code == 0, err
    assert "Against EQUAL_WEIGHT" in out
    assert "2003-07-01 to 2004-06-30 against EQUAL_WEIGHT:" in out
    code, out, _ = typed("benchmark", bench(), "--json")
    assert code == 0
    assert {row["name"]: row["kind"] for row in json.loads(out)["policies"]} == {
        "ours": "run", "other": "weights", "EQUAL_WEIGHT": "baseline",
    }  # fmt: skip
    directory = tmp_path / "out" / "bench-benchmark"
    assert {path.name for path in directory.iterdir()} == {"benchmark.json", "benchmark.md", "history.jsonl"}
    history = [json.loads(line) for line in (directory / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(history) == 2
    assert history[0]["policies"]["other"]["sharpe"] == history[1]["policies"]["other"]["sharpe"]
    board = make_scoreboard(tmp_path / "out")
    assert [standing.name for standing in board.standings] == ["other"]
    assert board.standings[0].runs[0].row["trials"] == 12


def test_the_gate_decides_the_exit_code(bench, typed):
    lenient = "{min_sharpe: -99, sharpe_margin: 99, min_share_beaten: 0, max_turnover_per_day: 9, min_weight_deviation: 0}"
    assert typed("benchmark", bench(gate=lenient), "--check")[0] == 0
    code, out, _ = typed("benchmark", bench(gate="{min_sharpe: 99}"), "--check")
    assert code == 1
    assert "FAIL  sharpe" in out
    assert typed("benchmark", bench(gate="{min_sharpe: 99}"))[0] == 0  # without --check it only shows


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("against: EQUAL_WEIGHT", "against: EQUAL_WIGHT", "against = 'EQUAL_WIGHT' is none of the policies: .* Did you mean"),
        ("bootstrap:", "boots:", "bench.yaml: unknown key boots"),
        ("kind: weights", "kind: wheights", "bench.yaml: policies"),
        ("name: ours", "name: other", "policies: two are called other"),
        ("period: [2003-07-01, 2004-06-30]", "period: [2004-07-01, 2004-06-30]", "ends before it starts"),
        ("trials: 12", "trials: 0", "trials = 0; expected at least 1"),
    ],
)
def test_mistakes_in_the_file_are_one_line(bench, old, new, message):
    with pytest.raises(ConfigError, match=message) as error:
        load_bench(bench(change=(old, new)))
    assert "\n" not in str(error.value)


def test_what_does_not_fit_the_prices_is_refused(bench, run, tmp_path):
    unknown = load_bench(
        bench(change=("name: EQUAL_WEIGHT}", "name: EQUAL_WEIGHTS}"), against=("against: EQUAL_WEIGHT", "against: other"))
    )
    with pytest.raises(ConfigError, match=r"unknown baseline EQUAL_WEIGHTS; there are ALL_.*Did you mean EQUAL_WEIGHT"):
        run_bench(unknown)
    other = load_bench(
        bench(change=("{source: synthetic, market: momentum, bars: 1200}", "{source: bundled, symbols: [AAPL]}"))
    )
    with pytest.raises(ConfigError, match=r"ours trades .* which the benchmark's data lack: they hold AAPL"):
        run_bench(dataclasses.replace(other, policies=other.policies[:2]))
    absent = load_bench(bench(change=(str(run.path), str(tmp_path / "none"))))
    with pytest.raises(ConfigError, match="is not a run"):
        run_bench(absent)


TAPE = random_tape(rows=6, assets=2)
DAYS = [str(day)[:10] for day in TAPE.dates]


def weights(tmp_path, text, caps=None):
    path = tmp_path / "w.csv"
    path.write_text(text, encoding="utf-8")
    return read_weights(path, TAPE, caps or CapsConfig())


def rows(values=("0.5",) * 6, days=DAYS, head="date,B"):
    return "\n".join([head, *(f"{day},{value}" for day, value in zip(days, values, strict=True))]) + "\n"


def test_weights_are_read_by_day_and_symbol_whatever_their_order(tmp_path):
    found = weights(tmp_path, rows(["0.6", "0.5", "0.4", "0.3", "0.2", "0.1"], DAYS[::-1]))
    assert_allclose(found[:, 1], [0.1, 0.2, 0.3, 0.4, 0.5, 0.5])  # the last row is never traded
    assert_allclose(found[:, 0], 0.0)
    assert_allclose(weights(tmp_path, rows() + "1999-12-31,9\n")[:, 1], 0.5)  # outside the period
    assert_allclose(weights(tmp_path, rows(days=DAYS[:5], values=["1"] * 5)), [[0, 1]] * 6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (rows(head="date,SPI"), "unknown symbol SPI; the prices hold A, B"),
        (rows(head="date,cash"), "Cash is what the others leave: drop the column"),
        (rows(head="day,B"), "has the columns day, B; expected date"),
        (rows(["0.5"] * 5, DAYS[:2] + DAYS[3:]), f"no weights for {DAYS[2]} \\(1 of 5 decisions"),
        (rows(["0.5"] * 7, [*DAYS, DAYS[1]]), f"{DAYS[1]} stands there twice"),
        (rows(["0.5"] * 7, [*DAYS, "2020-01-04"]), "2020-01-04 is no trading day"),
        (rows(["0.5", "", *["0.5"] * 4]), f"B on {DAYS[1]} is ''; expected a fraction of wealth"),
        (rows(["0.5", "50", *["0.5"] * 4]), f"{DAYS[1]} holds B 50, outside the caps .*half of it is 0.5"),
        (rows(["0.5", "-0.5", *["0.5"] * 4]), "outside the caps \\(long only"),
        (rows(days=["1.2.2020", *DAYS[1:]]), "line 2: date is '1.2.2020'; write it as 2020-01-31"),
    ],
)
def test_weights_that_cannot_be_traded_are_refused_with_day_and_column(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as error:
        weights(tmp_path, text)
    assert "\n" not in str(error.value)


def test_weights_are_never_scaled_into_the_caps_in_silence(tmp_path):
    with pytest.raises(ConfigError, match=r"holds A 0\.8, B 0\.8, outside the caps"):
        weights(tmp_path, rows(["0.8,0.8"] * 6, head="date,A,B"))
    wide = CapsConfig(long_only=False, gross=2, net=2)
    assert_allclose(weights(tmp_path, rows(["0.8,0.8"] * 6, head="date,A,B"), wide), 0.8)
    assert_allclose(weights(tmp_path, rows(["0.8,-0.8"] * 6, head="date,A,B"), wide)[0], [0.8, -0.8])


def test_a_planted_edge_is_shown_and_noise_is_not():
    rng = np.random.default_rng(0)
    market = 0.01 * rng.standard_normal(1_000)
    tracks = {
        "BASE": market,
        "better": market + 0.001 + 0.001 * rng.standard_normal(1_000),
        "noise": 0.01 * rng.standard_normal(1_000),
    }
    kinds = {"BASE": "baseline", "better": "run", "noise": "weights"}
    entries = [BenchmarkEntry(kind=kinds[name], track=track_of(returns, name)) for name, returns in tracks.items()]
    table = judge_entries(entries, "BASE", bootstrap=QUICK)
    assert {name: edge.verdict for name, edge in table.edges.items()}["better"] == "beats"
    assert table.edges["noise"].verdict != "beats"
    assert "better beats it" in table.sentence
    assert table.superiority.p_value < 0.05
    assert set(table.superiority.superior) == {"better"}
    trials = judge_entries([*entries[:2], dataclasses.replace(entries[2], trials=Trials(count=500))], "BASE", bootstrap=QUICK)
    assert trials.evidence["noise"].deflated < table.evidence["noise"].deflated


def test_the_example_in_the_documentation_loads(tmp_path):
    text = (REPOSITORY / "docs" / "JUDGING.md").read_text(encoding="utf-8")
    block = next(part for part in text.split("```")[1::2] if part.startswith("yaml\n"))
    path = tmp_path / "bench.yaml"
    path.write_text(block.removeprefix("yaml\n"), encoding="utf-8")
    assert load_bench(path).against in load_bench(path).names
