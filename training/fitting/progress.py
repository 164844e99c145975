"""How far a training is: a bar with the time left on a terminal, plain lines everywhere else."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["TrainingProgress"]


class TrainingProgress:
    """Shows steps and lines; use it in a ``with`` statement.

    Parameters
    ----------
    report : callable
        Takes a line where there is no terminal.
    console : rich.console.Console, optional
        Of standard error; the bar is drawn if it is a terminal.

    Examples
    --------
    >>> with TrainingProgress(print) as progress:
    ...     progress.begin("fit", steps=10, done=5)
    ...     progress.advance(loss=0.5)
    ...     progress.line("epoch 1/2: loss 0.5000")
    going on after step 5 of 10
    epoch 1/2: loss 0.5000
    """

    def __init__(self, report: Callable[[str], None], *, console: Console | None = None) -> None:
        self._report = report
        console = Console(stderr=True) if console is None else console
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:3.0f} %  {task.fields[loss]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )

    def __enter__(self) -> TrainingProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, words: str, *, steps: int, done: int = 0) -> None:
        """Start to count; ``done`` steps were made in an earlier sitting and do not count for the time left."""
        if done:
            self.line(f"going on after step {done} of {steps}")
        if self._bar is not None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(words, total=steps - done, loss="")

    def advance(self, *, loss: float) -> None:
        """Count a step."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=1, loss=f"loss {loss:.3f}")

    def line(self, text: str) -> None:
        """Say something above the bar."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            self._report(text)
