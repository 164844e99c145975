"""The size distribution as columns of characters on a terminal."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from edge_app.classification.palette import class_colours

__all__ = ["SizeChart"]

_EIGHTHS: Final = " ▁▂▃▄▅▆▇█"


class SizeChart:
    """Particles per mL in each size bin as columns of log height, coloured by the share of each class.

    Parameters
    ----------
    counted
        A histogram message: a total or a window.
    rows
        Lines of the columns; title and axis take three more.
    """

    def __init__(self, counted: Mapping[str, Any], *, rows: int) -> None:
        self._body = counted
        self._rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lines of the chart for the width that there is."""
        body = self._body
        edges, classes = body["edges_um"], list(body["counts"])
        volume = float(body["volume_ml"])
        # Log bins below the smallest reported size hold nothing, and the open one is narrow on paper.
        bins = [i for i in range(len(edges) - 1) if edges[i] >= 2.0]
        while len(bins) > 8 and not any(body["weighted"][c][bins[-1]] for c in classes) and edges[bins[-1]] > 100:
            bins.pop()
        if not bins or volume <= 0:
            return
        columns = [[float(body["weighted"][c][i]) / volume for c in classes] for i in bins]
        step = max(1, min(5, (options.max_width - 9) // len(bins)))
        columns = columns[: (options.max_width - 9) // step]
        sums = [sum(column) for column in columns]
        top = math.ceil(math.log10(max(*sums, 10.0)) - 1e-9)
        # The axis begins where one single particle of the run would stand, so that every particle shows.
        least = min((s for s in sums if s > 0), default=1.0)
        low = min(math.floor(math.log10(least) + 1e-9), top - 1)
        if 10**low == least or math.log10(least) - low < 0.05:
            low -= 1
        colours = list(class_colours(classes).values())
        title = "particles per mL in each size bin: height logarithmic, colours by share of class"
        yield Text(title, style="dim", no_wrap=True, overflow="ellipsis")
        stacks = [
            _stack(column, total, low=low, top=top, rows=self._rows)
            for column, total in zip(columns, sums, strict=True)
        ]
        for row in range(self._rows - 1, -1, -1):
            line = Text(no_wrap=True)
            line.append(_axis_label(row, rows=self._rows, low=low, top=top) + "│", style="dim")
            for stack in stacks:
                line.append_text(_cell(stack, row, colours, width=step - 1 if step > 1 else 1))
                if step > 1:
                    line.append(" ")
            yield line
        yield Text(" " * 7 + "└" + "─" * (step * len(stacks)), style="dim", no_wrap=True)
        yield _size_axis([float(edges[i]) for i in bins[: len(stacks)]], step=step)


def _stack(column: Sequence[float], total: float, *, low: int, top: int, rows: int) -> list[tuple[float, int]]:
    """Upper ends (in rows) of the coloured parts of a column, from below, with the number of the class."""
    if total <= 0:
        return []
    height = min(max((math.log10(total) - low) / (top - low), 0.0), 1.0) * rows
    ends, sofar = [], 0.0
    for position, value in enumerate(column):
        if value > 0:
            sofar += value
            ends.append((height * sofar / total, position))
    return ends


def _cell(stack: Sequence[tuple[float, int]], row: int, colours: Sequence[str], *, width: int) -> Text:
    """One character cell of a column: at most two colours, split at the nearest eighth."""
    inside = [(min(max(end - row, 0.0), 1.0), position) for end, position in stack]
    parts: list[tuple[float, int]] = []
    below = 0.0
    for end, position in inside:
        if end > below:
            parts.append((end - below, position))
            below = end
    if not parts or below < 1 / 16:
        return Text(" " * width)
    if below < 15 / 16:
        # The column ends here: its largest part stands for all of this cell.
        largest = max(parts)[1]
        return Text(_EIGHTHS[max(1, round(below * 8))] * width, style=colours[largest])
    lower, upper = parts[0], parts[-1]
    if len(parts) > 2:
        first, second = sorted(sorted(parts, reverse=True)[:2], key=lambda p: [q[1] for q in parts].index(p[1]))
        lower, upper = first, second
    if lower[1] == upper[1]:
        return Text("█" * width, style=colours[lower[1]])
    eighth = min(max(round(8 * lower[0] / (lower[0] + upper[0])), 1), 7)
    return Text(_EIGHTHS[eighth] * width, style=f"{colours[lower[1]]} on {colours[upper[1]]}")


def _axis_label(row: int, *, rows: int, low: int, top: int) -> str:
    """The power of ten that begins in this row, right-aligned to seven characters."""
    for power in range(low, top + 1):
        at = (power - low) / (top - low) * rows
        if row <= at < row + 1 or (power == top and row == rows - 1):
            value = 10.0**power
            text = f"{value:,.0f}" if 1 <= value < 100_000 else f"{value:g}" if 0.001 <= value < 1 else f"1e{power}"
            return f"{text:>6} "
    return " " * 7


def _size_axis(edges: Sequence[float], *, step: int) -> Text:
    """Lower bin edges under their columns, as many as fit."""
    line = [" "] * (8 + step * len(edges) + 8)
    wanted = [2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 200.0] if step > 1 else [2.0, 10.0, 50.0]
    free = 0
    for value in wanted:
        if value not in edges:
            continue
        at, text = 8 + step * edges.index(value), f"{value:g}"
        if at >= free:
            line[at : at + len(text)] = text
            free = at + len(text) + 1
    end = max(free, 8 + step * len(edges) - 2)
    line[end : end + 2] = "µm"
    return Text("".join(line).rstrip(), style="dim", no_wrap=True, overflow="crop")
