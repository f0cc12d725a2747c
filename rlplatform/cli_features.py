"""The commands `rlplatform features …` and `rlplatform forecast …`: forecasts as features, and forecasters of one's own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from rlplatform.cli_output import log, note, print_json, print_rows, print_table, shown

INTERRUPTED = 130

features_app = typer.Typer(help="The store of forecasts: fill it, what its columns mean.", no_args_is_help=True)
forecast_app = typer.Typer(help="Forecasters: train one of one's own, judge all on later days.", no_args_is_help=True)

ConfigArgument = Annotated[
    Path, typer.Argument(metavar="CONFIG.yaml", help="Settings, such as tune_configs/forecast_features.yaml.")
]
OverridesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings that replace the file's: features.forecasts.backend=auto"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output; logs go to standard error.")]


@features_app.command("build")
def features_build(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes; 0 for this one alone; by the amount of work if not given.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Forecast every (symbol, day) that the store lacks, and write the statistics; a second build touches nothing.

    Trainings with the same `features.forecasts` then read the store. Ctrl-C stops; the same command goes on.
    """
    from rlplatform.experiments.config import load_config
    from rlplatform.experiments.feature_building import build_features

    loaded = load_config(config, overrides or ())
    with _Forecasts() as progress:
        try:
            build = build_features(loaded, workers, progress.update)
        except (KeyboardInterrupt, SystemExit):
            note("stopped. What is made is kept; go on with the same command.")
            raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json(build.to_dict())
        return
    print_rows("Forecasts", list(build.backends))
    pace = f", {build.per_second:,.0f} a second" if build.computed else ""
    who = f"{build.workers} processes" if build.workers else "this process"
    print(f"{build.computed:,} forecasts computed by {who} in {build.seconds:.1f} s{pace}")
    print(f"statistics: {shown(Path(build.statistics))} ({build.statistics_files} files written)")


@features_app.command("columns")
def features_columns(
    config: Annotated[
        Path | None,
        typer.Argument(metavar="[CONFIG.yaml]", help="List the columns of this file's features; all there are if not given."),
    ] = None,
    overrides: OverridesArgument = None,
    as_json: JsonOption = False,
) -> None:
    """What features are, with units: technical ones, those of forecasts, and those of what surrounds the assets."""
    from rlplatform.experiments.config import load_config
    from rlplatform.experiments.feature_listing import feature_listing

    listing = feature_listing(None if config is None else load_config(config, overrides or ()).features)
    if as_json:
        print_json(listing)
        return
    for title, rows in (
        ("Technical features (features.groups)", listing["technical"]),
        ("Forecasts, one row for each (symbol, day, horizon) (features.forecasts.columns)", listing["columns"]),
        ("What surrounds the assets (features.context.columns)", listing["context"]),
    ):
        if rows:
            print_rows(title, rows)


@forecast_app.command("train")
def forecast_train(config: ConfigArgument, overrides: OverridesArgument = None, as_json: JsonOption = False) -> None:
    """Train a small Chronos-2 from scratch on the days of `split.train`; see the file's `forecast` block.

    Writes results/NAME-forecaster-TIME/model, which `from_pretrained` reads, and says how to use it as a feature.
    """
    from rlplatform.experiments.forecasting import load_forecasting, train

    forecasting = load_forecasting(config, overrides or ())
    note("training …")
    directory, trained = train(forecasting)
    if as_json:
        print_json(directory.manifest() | {"path": str(directory.path)})
        return
    (first, loss_before), (last, loss) = trained.losses[0], trained.losses[-1]
    print(f"{trained.parameters:,} parameters, {trained.values:,} returns of {trained.series} symbols")
    print(f"loss {loss_before:.3f} at step {first}, {loss:.3f} at step {last}")
    print(f"model: {shown(directory.model)}")
    print(f"as a feature: features.forecasts.backend=chronos features.forecasts.chronos.path={shown(directory.model)}")


@forecast_app.command("finetune")
def forecast_finetune(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    start: Annotated[
        Path | None,
        typer.Option("--from", metavar="DIR", help="The generic forecaster; the newest of this name if not given."),
    ] = None,
    symbols: Annotated[str, typer.Option(metavar="A,B", help="Whose specialists; all of the file's if not given.")] = "",
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to; a new directory of results if not given.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Go on training a generic forecaster on the rows of one symbol, for each symbol; only days of `split.train`.

    The last of those rows choose when to stop; the generic weights are kept where nothing was better. Writes
    results/NAME-specialists-TIME/models/SYMBOL.
    """
    from rlplatform.experiments.forecasting import load_forecasting
    from rlplatform.experiments.specialists import finetune

    forecasting = load_forecasting(config, overrides or ())
    wanted = tuple(name.strip() for name in symbols.split(",") if name.strip())
    directory, made = finetune(forecasting, start, wanted, out, lambda one: note(f"{one.symbol}: step {one.chosen_step} kept"))
    if as_json:
        print_json(directory.manifest() | {"path": str(directory.path)})
        return
    rows = [
        {
            "symbol": one.symbol,
            "kept step": one.chosen_step,
            "CRPS σ before": f"{one.looks[0][1]:.4f}",
            "after": f"{dict(one.looks)[one.chosen_step]:.4f}",
            "gain %": f"{one.gain_percent:+.2f}",
        }
        for one in made
    ]
    print_rows("Specialists, on the training rows that chose; later days say what it is worth", rows)
    print(f"specialists: {shown(directory.path)}")
    print(f"judge them: rlplatform forecast evaluate {config} --specialists {shown(directory.path)}")


@forecast_app.command("evaluate")
def forecast_evaluate(
    config: ConfigArgument,
    overrides: OverridesArgument = None,
    model: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A forecaster's directory or any Chronos folder; the newest if not given."),
    ] = None,
    specialists: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Of `forecast finetune`: judged too, and held against the generic one."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """CRPS and calibration of all forecasters on the days of `split.test`, held against bootstrap."""
    from rlplatform.experiments.forecasting import evaluate, load_forecasting

    result = evaluate(load_forecasting(config, overrides or ()), model, note, specialists)
    if as_json:
        print_json(result.to_dict())
        return
    rows = [
        {
            "backend": score.backend,
            "bars": str(score.horizon),
            "CRPS bp": f"{score.crps_bp:.2f}",
            "gain %": f"{score.gain_percent:+.2f}",
            "DM t": f"{score.dm_t:+.1f}" if score.dm_t == score.dm_t else "–",
            "in 80 %": f"{score.coverage_80:.3f}",
            "< q05": f"{score.below_05:.3f}",
            "< q50": f"{score.below_50:.3f}",
            "< q95": f"{score.below_95:.3f}",
        }
        for score in result.scores
    ]
    pairs = max(score.cells for score in result.scores)
    print_table(f"Forecasts made {result.period[0]} to {result.period[1]}, {pairs:,} (symbol, day) pairs", rows)
    if result.calibration:
        print_table("Recalibration: how often it was kept, and what that gained", [each.cells() for each in result.calibration])
    if result.differences:
        print_table("Specialists against the generic one", [each.cells() for each in result.differences])
    print(result.sentence)


class _Forecasts:
    """Progress on standard error: a live line on a terminal, a plain one every few seconds elsewhere."""

    interval_s = 5.0

    def __init__(self) -> None:
        self._began, self._last = time.monotonic(), 0.0
        self._live: Progress | None = None

    def __enter__(self) -> _Forecasts:
        if log.is_terminal:
            self._live = Progress(
                TextColumn("{task.fields[state]}"), BarColumn(), TimeRemainingColumn(), console=log, transient=True
            )
            self._task = self._live.add_task("", total=None, state="reading prices and the store")
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, done: int, total: int) -> None:
        seconds = time.monotonic() - self._began
        state = f"{done:,} of {total:,} forecasts, {done / max(seconds, 1e-9):,.0f}/s"
        if self._live is not None:
            self._live.update(self._task, completed=done, total=total, state=state)
        elif seconds - self._last >= self.interval_s or done == total:
            self._last = seconds
            note(state)
