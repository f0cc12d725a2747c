"""The commands `rlplatform offline …`: datasets of logged decisions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from rlplatform.cli_output import log, note, print_json, print_rows, shown
from rlplatform.cli_train import train_offline

if TYPE_CHECKING:  # the rooms take seconds to import; each command imports what it needs
    from rlplatform.experiments.config import ExperimentConfig
    from rlplatform.offline.coverage import DatasetReport
    from rlplatform.offline.manifest import DatasetManifest

offline_app = typer.Typer(help="Datasets of logged decisions: collect, import, check; train on them.", no_args_is_help=True)
offline_app.command("train")(train_offline)

CHECK_FAILED, INTERRUPTED = 1, 130

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output; logs go to standard error.")]
EnvOption = Annotated[str | None, typer.Option("--env", metavar="ID", help="Such as Portfolio-v0, on bundled prices.")]
ConfigOption = Annotated[Path | None, typer.Option(metavar="CONFIG.yaml", help="A run's settings, instead of --env.")]
PricesOption = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of CSV or Parquet prices, with --env.")]
SymbolsOption = Annotated[str, typer.Option(metavar="A,B,C", help="Which, with --env; the environment's default if not given.")]
OutOption = Annotated[Path, typer.Option("--out", metavar="DIR", help="Directory to make.")]
FormatOption = Annotated[
    str, typer.Option(metavar="NAME", help="json, parquet (one row a step), or parquet_episodes (RLlib's).")
]
ColumnsOption = Annotated[
    str | None,
    typer.Option(metavar="A,B", help="Extra columns; see docs/OFFLINE.md. All scalar ones that are known if not given."),
]


@offline_app.command("collect")
def offline_collect(
    policy: Annotated[
        str,
        typer.Option(
            metavar="SPEC", help="topk_equal_weight, momentum+noise:0.2, uniform, policy:RUN/policy, …; see docs/OFFLINE.md."
        ),
    ],
    out: OutOption,
    env: EnvOption = None,
    config: ConfigOption = None,
    episodes: Annotated[int, typer.Option(metavar="N", help="Complete episodes.")] = 200,
    format: FormatOption = "json",
    compress: Annotated[bool, typer.Option("--compress", help="Pack observations with lz4; JSON only.")] = False,
    period: Annotated[str, typer.Option(metavar="NAME", help="train, validation or test, of the settings' split.")] = "train",
    seed: Annotated[int, typer.Option(metavar="N", help="Of episode starts and actions.")] = 0,
    columns: ColumnsOption = None,
    prices: PricesOption = None,
    symbols: SymbolsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Let a behaviour policy trade and log what it did.

    The same command gives the same bytes. Interrupted, it goes on where it stopped when it is given again.
    """
    from rlplatform.experiments.collecting import CollectConfig, collect_dataset
    from rlplatform.offline.columns import RECORDED

    wanted = CollectConfig(
        policy=policy,
        episodes=episodes,
        format=format,
        compress=compress,
        period=period,
        seed=seed,
        columns=RECORDED if columns is None else _names(columns),
    )
    experiment = _experiment(env, config, prices, symbols)
    note("reading prices …")
    began = time.monotonic()
    with _Shards(episodes) as shards:
        try:
            manifest = collect_dataset(experiment, wanted, out, shards.update)
        except (KeyboardInterrupt, SystemExit):
            note("stopped. Go on with the same command.")
            raise typer.Exit(INTERRUPTED) from None
    _print_dataset(out, manifest, time.monotonic() - began, as_json)


@offline_app.command("import")
def offline_import(
    trades: Annotated[Path, typer.Argument(metavar="TRADES", help="CSV or Parquet: daily weights, or trades.")],
    out: OutOption,
    env: EnvOption = None,
    config: ConfigOption = None,
    capital: Annotated[
        float | None, typer.Option(metavar="MONEY", help="At the start; trades need it, weights do not.")
    ] = None,
    episode_bars: Annotated[
        int | None, typer.Option(metavar="N", help="Cut into episodes of N decisions; one if not given.")
    ] = None,
    format: FormatOption = "json",
    columns: ColumnsOption = None,
    prices: PricesOption = None,
    symbols: SymbolsOption = "",
    as_json: JsonOption = False,
) -> None:
    """Replay somebody's historical weights or trades through an environment as episodes.

    Columns: date, symbol, weight; or date and one column a symbol; or date, symbol and quantity (shares) or notional
    (money), < 0 for sales.
    """
    from rlplatform.experiments.collecting import import_dataset
    from rlplatform.offline.columns import RECORDED

    experiment = _experiment(env, config, prices, symbols)
    began = time.monotonic()
    names = RECORDED if columns is None else _names(columns)
    manifest = import_dataset(experiment, trades, out, format, capital, episode_bars, names)
    _print_dataset(out, manifest, time.monotonic() - began, as_json)


@offline_app.command("check")
def offline_check(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A dataset's directory.")],
    as_json: JsonOption = False,
) -> None:
    """Schema, ranges, coverage, returns; what each algorithm can do with it. Exit code 1 when it has problems."""
    from rlplatform.offline.coverage import check_dataset

    report = check_dataset(directory)
    print_json(report.to_dict()) if as_json else _print_report(report)
    if not report.ok:
        raise typer.Exit(CHECK_FAILED)


@offline_app.command("evaluate")
def offline_evaluate(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Any run's directory.")],
    dataset: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Logged episodes; those the run learnt from if not given. Give it again for several."),
    ] = None,
    gamma: Annotated[float, typer.Option(metavar="G", help="Discount a step.")] = 0.99,
    estimators: Annotated[str, typer.Option(metavar="A,B", help="Of is, wis, dr, wdr, fqe; all that can if not given.")] = "",
    episodes: Annotated[int, typer.Option(metavar="N", help="Episodes traded for the truth.")] = 400,
    as_json: JsonOption = False,
) -> None:
    """What a policy would have earned, estimated from logged episodes, beside what it does earn in the same environment.

    Writes report/off_policy.json and report/off_policy.png into the run.
    """
    from rlplatform.experiments.off_policy import evaluate_off_policy
    from rlplatform.experiments.run_directory import RunDirectory

    run = RunDirectory.open(run_dir)
    report = evaluate_off_policy(run, dataset or (), gamma, _names(estimators), episodes)
    if as_json:
        print_json(report.to_dict())
    else:
        print_rows(f"{run.name}, discounted reward of an episode", report.rows())
        for line in report.notes():
            print(f"- {line}")
    note(f"plot: {shown(run.report / 'off_policy.png')}")


def _experiment(env: str | None, config: Path | None, prices: Path | None, symbols: str) -> ExperimentConfig:
    from rlplatform.experiments.collecting import default_experiment
    from rlplatform.experiments.config import load_config

    if (env is None) == (config is None):
        raise typer.BadParameter("give --env ID or --config CONFIG.yaml, one of them.")
    if config is None:
        return default_experiment(env, prices, _names(symbols))
    if prices is not None or symbols:
        raise typer.BadParameter("--prices and --symbols go with --env; the config has its own data.")
    return load_config(config)


class _Shards:
    """Progress on standard error: a live line on a terminal, a plain one every few seconds elsewhere."""

    interval_s = 5.0

    def __init__(self, episodes: int) -> None:
        self.episodes, self._began, self._last = episodes, time.monotonic(), 0.0
        self._live: Progress | None = None

    def __enter__(self) -> _Shards:
        if log.is_terminal:
            self._live = Progress(
                TextColumn("{task.fields[state]}"), BarColumn(), TimeRemainingColumn(), console=log, transient=True
            )
            self._task = self._live.add_task("", total=self.episodes, state="collecting")
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, episodes: int, rows: int) -> None:
        seconds = time.monotonic() - self._began
        state = f"{episodes:,} of {self.episodes:,} episodes, {rows:,} rows, {rows / max(seconds, 1e-9):,.0f} rows/s"
        if self._live is not None:
            self._live.update(self._task, completed=episodes, state=state)
        elif seconds - self._last >= self.interval_s or episodes == self.episodes:
            self._last = seconds
            note(state)


def _print_dataset(out: Path, manifest: DatasetManifest, seconds: float, as_json: bool) -> None:
    size = sum(record.bytes for record in manifest.files)
    facts = {
        "dataset": str(out),
        "env": manifest.env_id,
        "format": manifest.format,
        "episodes": manifest.episodes,
        "rows": manifest.rows,
        "bytes": size,
        "seconds": round(seconds, 2),
        "episode_return": dict(manifest.episode_return),
        "total_return": manifest.total_return,
        "log_prob": manifest.has_log_prob,
    }
    if as_json:
        print_json(facts)
        return
    total = manifest.total_return
    rows = [
        {"": "environment", "value": f"{manifest.env_id}, {manifest.obs_size} observations, {manifest.space}"},
        {"": "period", "value": f"{manifest.period['name']}, {manifest.period['start']} to {manifest.period['end']}"},
        {"": "episodes", "value": f"{manifest.episodes:,} of {manifest.rows / manifest.episodes:.0f} decisions"},
        {"": "rows", "value": f"{manifest.rows:,}, {size / manifest.rows:,.0f} bytes each, {len(manifest.files)} file(s)"},
        {"": "episode return", "value": _spread(manifest.episode_return, ".3g")},
        *([{"": "wealth", "value": _spread(total, "+.1%")}] if total else []),
        {"": "log-probability", "value": "of each action" if manifest.has_log_prob else "none"},
    ]
    print_rows(str(shown(out)), rows)
    print(f"look at it with: rlplatform offline check {shown(out)}")


def _spread(figures: dict[str, float], form: str) -> str:
    low, middle, high = (format(figures[name], form) for name in ("q05", "q50", "q95"))
    return f"mean {figures['mean']:{form}}, median {middle}, 90 % in {low} … {high}"


def _print_report(report: DatasetReport) -> None:
    facts: list[tuple[str, str]] = [
        ("environment", report.env_id),
        ("episodes", f"{report.episodes:,}"),
        ("rows", f"{report.rows:,} ({report.bytes / 1e6:.1f} MB)"),
    ]
    if report.returns:
        facts.append(("episode return", _spread(report.returns["episode_return"], ".3g")))
        if "total_return" in report.returns:
            facts.append(("wealth", _spread(report.returns["total_return"], "+.1%")))
    if report.action_coverage is not None:
        facts.append(("action coverage", f"{report.action_coverage:.0%} of the space visited"))
        entropy = report.behaviour_entropy
        facts.append(("behaviour entropy", "unknown (no log-probability)" if entropy is None else f"{entropy:.3g} nats"))
    if report.regimes:
        facts.append(("market states", ", ".join(f"{name} {share:.0%}" for name, share in report.regimes.items())))
    if report.days:
        facts.append(("days decided on", f"{report.days['decided']:,.0f} of {report.days['period']:,.0f}"))
    if report.observations:
        facts.append(("observations", _observations(report.observations)))
    print_rows(str(shown(Path(report.path))), [{"": name, "value": value} for name, value in facts])
    if report.actions:
        print_rows("Actions", [_rounded(row) for row in report.actions])
    if report.capabilities:
        print_rows(
            "What can learn from it",
            [{"algorithm": c.algorithm, "usable": c.usable, "why": c.why} for c in report.capabilities],
        )
    for problem in report.problems:
        print(f"- {problem}")


def _observations(facts: dict[str, Any]) -> str:
    constant = facts["constant"]
    still = f", {len(constant)} constant ({', '.join(constant[:3])}{', …' * (len(constant) > 3)})" if constant else ""
    return f"{facts['entries']} entries{still}; largest |value| {facts['largest_value']:.3g} ({facts['largest']})"


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: f"{value:.3g}" if isinstance(value, float) else value for name, value in row.items()}


def _names(text: str) -> Sequence[str]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
