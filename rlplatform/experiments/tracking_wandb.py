"""Weights & Biases, inside its own process: online where it can, else offline. Run as a module by `TrackingProcess`."""

from __future__ import annotations

import netrc
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rlplatform.experiments.tracking_process import Backend, Message, serve, step_axis

SERVER = "https://api.wandb.ai"
REACH_S, INIT_S = 10, 30
# What W&B would otherwise collect by itself: console output, git remotes, code, command line, packages.
QUIET = {
    "console": "off",
    "silent": True,
    "disable_git": True,
    "disable_code": True,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_disable_stats": True,  # of this process, not of the training
    "x_save_requirements": False,
    "init_timeout": INIT_S,
}


class WandbBackend(Backend):
    """One W&B run. Its files lie in <run>/wandb; the axis of plots is the run's counter of steps."""

    def start(self, run: Message) -> Mapping[str, str]:
        self._directory, tracking = Path(run["directory"]), run["tracking"]
        offline = why_offline(tracking["mode"], os.environ)
        if offline is not None:
            os.environ["WANDB_MODE"] = "offline"  # the argument alone asks for a key
        own = self._directory / "wandb"
        own.mkdir(parents=True, exist_ok=True)  # else W&B chooses the temporary directory
        for name in ("DATA", "CACHE"):  # staged artifacts must lie there until `wandb sync`
            os.environ[f"WANDB_{name}_DIR"] = str(own)

        import wandb

        self._wandb, self._axis = wandb, None
        try:
            self._run = self._init(run, tracking)
        except wandb.errors.Error as error:
            if offline is not None:
                raise
            offline = f"{type(error).__name__}: {error}".splitlines()[0]
            os.environ["WANDB_MODE"] = "offline"
            wandb.teardown()
            self._run = self._init(run, tracking)
        return self._where(offline)

    def _init(self, run: Message, tracking: Mapping[str, Any]) -> Any:
        return self._wandb.init(
            project=tracking["project"],
            entity=tracking["entity"],
            group=tracking["group"],
            tags=tracking["tags"],
            name=run["name"],
            id=run["id"],
            resume="allow",
            dir=run["directory"],
            config=run["config"],
            mode="offline" if os.environ.get("WANDB_MODE") == "offline" else "online",
            settings=self._wandb.Settings(**QUIET, finish_timeout=max(1.0, 0.8 * float(sys.argv[1]))),
        )

    def _where(self, offline: str | None) -> dict[str, str]:
        sync = f"wandb sync {Path(self._run.dir).parent}"
        if offline is None:
            return {"say": str(self._run.url), "rescue": sync}
        reason = f"{offline}, so the run is kept offline" if offline else "the run is kept offline"
        return {"say": f"{reason}. To send it later: {sync}", "rescue": sync}

    def log(self, row: Mapping[str, float], step: int) -> None:
        if self._axis is None:
            self._axis = step_axis(row)
            self._run.define_metric("*", step_metric=self._axis)
        self._run.log(dict(row), step=step)  # a resumed run's step says which of its rows are there already

    def finish(self, outcome: Message) -> None:
        self._run.summary.update(outcome.get("summary", {}))
        pictures = [Path(name) for name in outcome.get("pictures", ())]
        media = {path.stem: self._wandb.Image(str(path)) for path in pictures}
        if outcome.get("table"):
            columns = list(outcome["table"][0])
            data = [[row.get(name) for name in columns] for row in outcome["table"]]
            media["evaluation"] = self._wandb.Table(columns=columns, data=data)
        if media:
            self._run.log(media)
        if outcome.get("texts") or pictures:
            self._run.log_artifact(self._artifact(outcome.get("texts", {}), pictures))
        self._run.finish(exit_code=1 if outcome.get("failed", True) else 0)

    def _artifact(self, texts: Mapping[str, str], pictures: list[Path]) -> Any:
        artifact = self._wandb.Artifact(name=f"run-{self._run.id}", type="run")
        for name, text in texts.items():
            with artifact.new_file(name, encoding="utf-8") as file:
                file.write(text)
        for path in pictures:
            artifact.add_file(str(path), name=f"report/{path.name}", skip_cache=True)
        return artifact


def why_offline(mode: str, environment: Mapping[str, str]) -> str | None:
    """Why a run cannot be shown online, in a few words; "" where nobody wants that; None where it can.

    Args:
        mode: of the config; WANDB_MODE=offline in the environment overrides "online".
    """
    if mode == "offline" or environment.get("WANDB_MODE") in ("offline", "dryrun", "disabled"):
        return ""
    server = environment.get("WANDB_BASE_URL", SERVER)
    if not environment.get("WANDB_API_KEY") and not _has_login(server, environment):
        return "no API key (`wandb login`, or WANDB_API_KEY)"
    return None if _answers(server) else f"no answer from {urlsplit(server).hostname}"


def _has_login(server: str, environment: Mapping[str, str]) -> bool:
    """Whether `wandb login` has left a key in the netrc file."""
    places = [environment["NETRC"]] if "NETRC" in environment else [Path.home() / name for name in (".netrc", "_netrc")]
    for place in places:
        try:
            if netrc.netrc(place).authenticators(urlsplit(server).hostname or "") is not None:
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


def _answers(server: str) -> bool:
    """Whether anything is there, through a proxy if there is one; what it says matters not."""
    try:
        urllib.request.urlopen(server, timeout=REACH_S).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


if __name__ == "__main__":
    serve(WandbBackend())
