"""What happened epoch by epoch: CSV, TensorBoard, curves, and a compact form for the bundle."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from training.fitting.disk import disk_errors, write_atomically

__all__ = ["COLUMNS", "EventLog", "compact", "draw_curves", "write_log"]

#: ``epoch`` 0 is the network as it was before; ``loss`` and ``learning_rate`` are empty there, the figures of the
#: validation set empty where there is none.
COLUMNS: Final = (
    "epoch",
    "loss",
    "learning_rate",
    "stages",
    "validation_loss",
    "validation_macro_f1",
    "validation_accuracy",
    "seconds",
)
_FIGURES: Final = ("loss", "validation_loss", "validation_macro_f1")


def write_log(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write the CSV, anew each time: a training that goes on after a kill leaves no line twice."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in history:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
    with disk_errors(path):
        write_atomically(path, text.getvalue().encode())


def compact(history: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    """Figures by name with four digits, for the bundle's record; no times, so the same training has the same record."""
    return {
        name: [None if row.get(name) is None else float(f"{row[name]:.4g}") for row in history]
        for name in _FIGURES
        if any(row.get(name) is not None for row in history)
    }


class EventLog:
    """Writes epochs for TensorBoard.

    Parameters
    ----------
    folder : Path
        ``tensorboard --logdir FOLDER`` shows it.
    """

    def __init__(self, folder: Path) -> None:
        import tensorflow as tf

        # tf.summary.scalar wants the tensorboard package; only who looks at the curves needs that.
        self._write = tf.summary.write
        self._kind = tf.compat.v1.SummaryMetadata(
            data_class="DATA_CLASS_SCALAR", plugin_data={"plugin_name": "scalars"}
        )
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = tf.summary.create_file_writer(str(folder))

    def __call__(self, row: Mapping[str, Any]) -> None:
        """Add an epoch."""
        with self._writer.as_default(step=int(row["epoch"])):
            for name in COLUMNS[1:]:
                if row.get(name) is not None:
                    self._write(name, np.float32(row[name]), metadata=self._kind)
        self._writer.flush()


def draw_curves(path: Path, history: Sequence[Mapping[str, Any]], *, title: str, kept_epoch: int | None = None) -> None:
    """Draw loss and macro-F1 against the epoch.

    Parameters
    ----------
    path : Path
        PNG to write.
    history : sequence of mapping
        Rows with `COLUMNS`.
    title : str
    kept_epoch : int, optional
        Marked: the epoch whose weights were kept.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator

    measured = any(row.get("validation_macro_f1") is not None for row in history)
    figure, axes = plt.subplots(
        1, 2 if measured else 1, figsize=(9.6 if measured else 5.2, 3.6), dpi=120, squeeze=False, layout="constrained"
    )

    def line(ax: Any, name: str, colour: str, words: str, *, dashes: str = "-") -> None:
        points = [(row["epoch"], row[name]) for row in history if row.get(name) is not None]
        if points:
            style = {
                "color": colour,
                "marker": "o",
                "markersize": 3,
                "linewidth": 1.6,
                "label": words,
                "linestyle": dashes,
            }
            ax.plot(*zip(*points, strict=True), **style)

    line(axes[0, 0], "loss", "#7a8691", "training (smoothed labels, varied pictures)")
    line(axes[0, 0], "validation_loss", "#1f6fb2", "validation, mean over classes")
    axes[0, 0].set_ylabel("loss")
    if measured:
        line(axes[0, 1], "validation_macro_f1", "#1f6fb2", "validation macro-F1")
        line(axes[0, 1], "validation_accuracy", "#7a8691", "validation accuracy", dashes="--")
        low = min(row["validation_macro_f1"] for row in history if row.get("validation_macro_f1") is not None)
        axes[0, 1].set_ylim(max(0.0, min(low - 0.05, 0.75)), 1.005)
    joined = [
        row["epoch"] for before, row in pairwise(history) if before.get("stages") and row["stages"] > before["stages"]
    ]
    for ax in axes[0]:
        for epoch in joined:
            ax.axvline(epoch - 0.5, color="#c5ccd3", linewidth=1, linestyle=":", zorder=0)
        if kept_epoch is not None:
            ax.axvline(kept_epoch, color="#c4572e", linewidth=1.2, zorder=0, label=f"kept: epoch {kept_epoch}")
        ax.set_xlabel("epoch" + (" (dotted: a stage joins)" if joined else ""))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="#e6eaed", linewidth=0.8)
        ax.set_axisbelow(True)
        ax.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    plt.close(figure)
    with disk_errors(path):
        write_atomically(path, content.getvalue())
