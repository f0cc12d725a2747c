"""TensorBoard, inside its own process: <run>/tensorboard. Run as a module by `TrackingProcess`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlplatform.experiments.tracking_process import Backend, Message, serve, step_axis

FLUSH_S = 10


class TensorBoardBackend(Backend):
    """Event files of one run; a resumed run adds one, which takes back the rows that it repeats."""

    def start(self, run: Message) -> Mapping[str, str]:
        import tensorboardX

        self._module, self._writer, self._step = tensorboardX, None, 0
        self._directory, self._config = Path(run["directory"]) / "tensorboard", run["config"]
        return {"say": f"tensorboard --logdir {self._directory}"}

    def log(self, row: Mapping[str, float], step: int) -> None:
        self._step = int(row.get(step_axis(row), step))
        for name, value in row.items():
            self._events(self._step).add_scalar(name, value, self._step)

    def finish(self, outcome: Message) -> None:
        events, summary = self._events(self._step), outcome.get("summary", {})
        for name, value in summary.items():
            if isinstance(value, str):
                events.add_text(name, value, self._step)
            else:
                events.add_scalar(f"test/{name}", value, self._step)
        for path in (Path(name) for name in outcome.get("pictures", ())):
            events.add_image(path.stem, _pixels(path), self._step, dataformats="HWC")
        events.close()

    def _events(self, step: int) -> Any:
        if self._writer is None:  # now, for only the first row says from which step on earlier files are void
            self._writer = self._module.SummaryWriter(str(self._directory), purge_step=step, flush_secs=FLUSH_S)
            self._writer.add_text("config", f"```\n{json.dumps(self._config, indent=2)}\n```", step)
        return self._writer


def _pixels(path: Path) -> Any:
    """(height, width, 3) uint8."""
    import numpy as np
    from PIL import Image

    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


if __name__ == "__main__":
    serve(TensorBoardBackend())
