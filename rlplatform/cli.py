"""The command line: parse, call one experiment, print where the results are."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import logging
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

from rlplatform.cli_ablation import ablation
from rlplatform.cli_court import benchmark, compare, scoreboard
from rlplatform.cli_ensemble import ensemble
from rlplatform.cli_features import features_app, forecast_app
from rlplatform.cli_jobs import jobs_app, submit
from rlplatform.cli_offline import offline_app
from rlplatform.cli_output import log, note, print_json, print_rows, print_verdict, shown
from rlplatform.cli_pipeline import pipeline
from rlplatform.cli_proofs import guards_app, lookahead
from rlplatform.cli_report import explain, report, stress
from rlplatform.cli_scenarios import scenarios_app
from rlplatform.cli_sweep import results, sweep
from rlplatform.cli_train import train
from rlplatform.cli_walkforward import walkforward
from rlplatform.experiments.secrets import SecretFilter

app = typer.Typer(
    help="Train and honestly judge trading policies on Ray RLlib.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Prices: what sources there are, check a folder, download.", no_args_is_help=True)
app.add_typer(data_app, name="data")
bench_app = typer.Typer(help="Speed on this machine, side by side with other libraries.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")
app.add_typer(offline_app, name="offline")
app.add_typer(jobs_app, name="jobs")
app.add_typer(features_app, name="features")
app.add_typer(forecast_app, name="forecast")
app.add_typer(scenarios_app, name="scenarios")
app.command()(submit)
app.add_typer(guards_app, name="guards")
app.command()(lookahead)
app.command()(sweep)
app.command()(results)
app.command()(compare)
app.command()(scoreboard)
app.command()(benchmark)
app.command()(ensemble)
app.command()(walkforward)
app.command()(ablation)
app.command()(pipeline)
app.command()(report)
app.command()(explain)
app.command()(stress)

USAGE_ERROR, CHECK_FAILED, INTERRUPTED = 2, 1, 130

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output; logs go to standard error.")]
StartOption = Annotated[str | None, typer.Option(metavar="DATE", help="First day, such as 2020-01-31.")]
EndOption = Annotated[str | None, typer.Option(metavar="DATE", help="Last day, included.")]
CalendarOption = Annotated[
    str, typer.Option(metavar="NAME", help="Exchange calendar whose sessions the prices must have; 'none' for any days.")
]


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"rlplatform {importlib.metadata.version('rlplatform')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    pass


app.command()(train)


@app.command()
def evaluate(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Such as results/RUN.")],
    prices: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of other prices, with the run's symbols.")] = None,
    symbols: Annotated[str, typer.Option(metavar="A,B,C", help="Other assets, more or fewer; for a GNN.")] = "",
    start: StartOption = None,
    end: EndOption = None,
    check: Annotated[bool, typer.Option("--check", help="The regression gate; exit code 1 when it fails.")] = False,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Write a report into this directory.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Judge a run's policy again, on its test period or on other prices, days or assets."""
    from rlplatform.experiments.evaluating import evaluate_run
    from rlplatform.experiments.run_directory import RunDirectory

    run = RunDirectory.open(run_dir)
    verdict = evaluate_run(run, prices, start, end, report, _names(symbols))
    print_verdict(verdict, as_json, {"run": str(run.path)})
    if check and not as_json:
        for line in verdict.gate.lines():
            print(line)
    if report is not None:
        note(f"report: {shown(report / 'report.md')}")
    if check and not verdict.gate.passed:
        raise typer.Exit(CHECK_FAILED)


@app.command()
def baselines(
    prices: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of CSV or Parquet files; the bundled stocks if not given.")
    ] = None,
    symbols: Annotated[str, typer.Option(metavar="A,B,C", help="Which; all there are if not given.")] = "",
    start: StartOption = None,
    end: EndOption = None,
    costs_bps: Annotated[
        float, typer.Option(metavar="BPS", help="Commission plus half spread, in basis points of traded value.")
    ] = 5.0,
    calendar: CalendarOption = "XNYS",
    as_json: JsonOption = False,
) -> None:
    """The table of simple policies: each asset, equal weight, momentum, … No learning."""
    from envs.terms import CostConfig
    from rlplatform.data import BundledConfig, FolderConfig
    from rlplatform.experiments.evaluating import baselines_table

    source = (
        BundledConfig(symbols=_names(symbols))
        if prices is None
        else FolderConfig(path=str(prices), symbols=_names(symbols), calendar=_calendar(calendar))
    )
    table = baselines_table(source, start, end, CostConfig(proportional_bps=costs_bps))
    print_json(table.to_dict()) if as_json else Console().print(table.to_rich())


@app.command()
def envs(as_json: JsonOption = False) -> None:
    """The catalogue: id, observation, action, reward terms."""
    from envs.catalog import describe_catalog

    entries = describe_catalog()
    if as_json:
        print_json({"envs": entries})
        return
    console = Console(highlight=False)
    for entry in entries:
        console.print(f"[bold]{entry['id']}[/]  {escape(entry['summary'])}")
        grid = Table.grid(padding=(0, 2))
        for name in ("observation", "action", "reward", "terms"):
            grid.add_row(f"  [dim]{name}[/]", escape(entry[name]))
        console.print(grid)


@data_app.command("list")
def data_list(as_json: JsonOption = False) -> None:
    """What sources of prices there are."""
    from rlplatform.data import list_sources

    sources = [dataclasses.asdict(source) for source in list_sources()]
    print_json({"sources": sources}) if as_json else print_rows("Sources", sources)


@data_app.command("check")
def data_check(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="CSV or Parquet files, or one long file.")],
    calendar: CalendarOption = "XNYS",
    as_json: JsonOption = False,
) -> None:
    """Validate a folder of prices; exit code 1 when it has problems."""
    from rlplatform.data import check_folder

    report = check_folder(folder, _calendar(calendar))
    if as_json:
        print_json(dataclasses.asdict(report) | {"ok": report.ok})
    else:
        rows = [dataclasses.asdict(symbol) | {"problems": len(symbol.problems)} for symbol in report.symbols]
        print_rows(str(folder), rows)
        for problem in (*report.problems, *(problem for symbol in report.symbols for problem in symbol.problems)):
            print(f"- {problem}")
    if not report.ok:
        raise typer.Exit(CHECK_FAILED)


@data_app.command("download")
def data_download(
    symbols: Annotated[str, typer.Argument(metavar="SYMBOLS", help="Comma-separated, such as SPY,QQQ,IWM.")],
    path: Annotated[Path, typer.Option(metavar="DIR", help="Snapshot folder to make.")],
    start: StartOption = None,
    end: EndOption = None,
) -> None:
    """Fetch daily prices with yfinance (optional extra) into a snapshot with hashes."""
    from rlplatform.data import YahooConfig, download

    if not _names(symbols):
        raise typer.BadParameter("name at least one symbol, such as SPY,QQQ,IWM.")
    print(download(YahooConfig(symbols=_names(symbols), start=start, end=end, path=str(path))))


QuickOption = Annotated[bool, typer.Option("--quick", help="One short round, about 90 s on a quiet machine; rough figures.")]


@bench_app.command("env")
def bench_env(quick: QuickOption = False, as_json: JsonOption = False) -> None:
    """Our environment alone: 1 to 8,192 accounts, 3 to 500 assets, numpy and torch; memory."""
    _bench(("env",), quick, as_json)


@bench_app.command("train")
def bench_train(quick: QuickOption = False, as_json: JsonOption = False) -> None:
    """Whole training: ours, stock RLlib, Stable-Baselines3, and the limit of the arithmetic."""
    _bench(("train",), quick, as_json)


@bench_app.command("tape")
def bench_tape(quick: QuickOption = False, as_json: JsonOption = False) -> None:
    """A path of known weights through the ledger in one pass, against one step at a time."""
    _bench(("tape",), quick, as_json)


@bench_app.command("offline")
def bench_offline(quick: QuickOption = False, as_json: JsonOption = False) -> None:
    """MARWIL over arrays in memory, against RLlib's default path through Ray Data."""
    _bench(("offline",), quick, as_json)


@bench_app.command("forecast")
def bench_forecast(quick: QuickOption = False, as_json: JsonOption = False) -> None:
    """The feature store of 20 symbols by a tiny Chronos: one by one, in batches, on 1 and 2 actors; memory."""
    _bench(("forecast",), quick, as_json)


@bench_app.command("all")
def bench_all(quick: QuickOption = False, as_json: JsonOption = False) -> None:
    """env, tape, train, offline and forecast."""
    _bench(("env", "tape", "train", "offline", "forecast"), quick, as_json)


def _bench(sections: tuple[str, ...], quick: bool, as_json: bool) -> None:
    """Writes results/bench/TIME.json and results/bench/latest.md."""
    from rlplatform.bench.benchmark import run_benchmark, write_results
    from rlplatform.bench.report import markdown

    result = run_benchmark(sections, quick, note)
    path = write_results(result, Path("results") / "bench")
    print_json(result) if as_json else print(markdown(result))
    note(f"results: {shown(path)}")


def _names(symbols: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in symbols.split(",") if name.strip())


def _calendar(name: str) -> str | None:
    return None if name.lower() == "none" else name


def _log_handler() -> logging.Handler:
    handler = RichHandler(console=log, show_time=False, show_level=False, show_path=False, markup=False)
    handler.addFilter(SecretFilter())  # a warning of any library may quote a key, or the password of a proxy
    return handler


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2, never a stack trace."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[_log_handler()])
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app(prog_name="rlplatform")
    except KeyboardInterrupt:
        note("stopped.")
        sys.exit(INTERRUPTED)
    except Exception as error:
        from envs.errors import PlatformError  # brings torch with it

        if not isinstance(error, PlatformError):
            raise
        log.print(f"[bold red]{type(error).__name__}[/]: ", end="")
        note(str(error))
        sys.exit(USAGE_ERROR)


if __name__ == "__main__":
    main()
