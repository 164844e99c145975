"""The live terminal view: what a :class:`Board` knows, drawn for people.

:func:`render` makes a picture of a board for a given size and nothing else; :class:`LiveView` subscribes, draws and
repeats. Both ``edge-app watch`` and a run that shows itself use them, so both see what a lab's own software sees.
"""

import math
import os
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from edge_app.messaging.board import Board, DeviceState
from edge_app.messaging.mqtt_url import BrokerAddress
from edge_app.messaging.subscriber import Subscriber
from edge_app.messaging.topics import TREE_VERSION

__all__ = ["LiveView", "plain_line", "render"]

SIZES: Final = ("2", "5", "10", "25", "50", "70")
"""Reporting sizes in um, columns of the table."""

_COLOURS: Final = {
    "silicone_oil": "#e69f00",
    "air_bubble": "#56b4e9",
    "protein_aggregate": "#d55e00",
    "protein_mimic": "#cc79a7",
    "glass": "#00b283",
    "cellulose": "#b3a5ff",
    "bead": "#f0e442",
    "unknown": "#8a8a8a",
}
"""Colours that stay apart for the colour-blind (Okabe-Ito), one for each class whatever else is on the screen."""

_SPARE: Final = ("#7fc97f", "#beaed4", "#fdc086", "#80b1d3")
_STATES: Final = {
    "running": ("bold green", "●"),
    "ready": ("green", "●"),
    "init": ("yellow", "●"),
    "degraded": ("bold yellow", "▲"),
    "error": ("bold red", "✖"),
    "lost": ("bold red", "✖"),
    "disconnected": ("dim", "○"),
}
_EIGHTHS: Final = " ▁▂▃▄▅▆▇█"
_SEVERITY: Final = {"warning": "yellow", "error": "bold red"}


def render(
    devices: Sequence[DeviceState], *, width: int, height: int, heading: str = "", now: float | None = None
) -> RenderableType:
    """Draw devices into ``width`` x ``height`` characters: one in full, the others in a line each.

    Parameters
    ----------
    devices
        From :meth:`Board.devices`.
    width, height
        Size of the terminal; below about 60 x 16 only the most important is left.
    heading
        First line: where we listen and what is wrong with it.
    now
        ``time.monotonic()`` to which ages refer; None: now.
    """
    moment = time.monotonic() if now is None else now
    top = Text(heading, style="dim", no_wrap=True, overflow="ellipsis")
    if not devices:
        waiting = Text("waiting for a device ...", style="italic")
        return Group(top, Panel(waiting, border_style="dim")) if height > 4 else Group(top, waiting)
    main = _most_alive(devices)
    parts: list[RenderableType] = [top]
    used = 1
    if len(devices) > 1 and height >= 12:
        shown = _others(devices, main, rows=max(1, min(len(devices), (height - 10) // 3)))
        parts.append(shown)
        used += shown.row_count
    parts.extend(_device(main, width=width, height=height - used, now=moment))
    return Group(*parts)


def _most_alive(devices: Sequence[DeviceState]) -> DeviceState:
    order = {"running": 3, "degraded": 3, "error": 3, "ready": 2, "init": 2}
    return max(devices, key=lambda d: (order.get(d.state, 0), d.total is not None, d.name))


def _others(devices: Sequence[DeviceState], main: DeviceState, *, rows: int) -> Table:
    grid = Table.grid(padding=(0, 2))
    for device in devices[:rows]:
        mark = Text("▶" if device is main else " ", style="bold")
        ten = _number(_per_ml(device, "all", "10"))
        grid.add_row(mark, device.name, _state(device), Text(f"{ten} /mL ≥ 10 µm", style="dim"))
    return grid


def _device(state: DeviceState, *, width: int, height: int, now: float) -> list[RenderableType]:
    """The lines of one device, the least important left out first where there is no room."""
    tight = height < 16 or width < 60
    head = _headline(state, now=now)
    foot = [_totals_line(state), *([] if tight else _window_lines(state)), *_stats_lines(state, tight=tight)]
    classes = _classes(state)
    rows = len(classes) + 1
    # Table: heading and rows; what is left below it is the chart's, which needs three lines for its title and axis.
    events = [] if tight else _event_lines(state, most=max(0, min(3, height - rows - len(foot) - 11)))
    table_height = rows + 1
    left = height - 1 - len(foot) - len(events) - table_height
    if classes and left < 0:
        table_height = max(height - 1 - len(foot), 3)
        counts = {name: sum((_counted(state) or {})["counts"][name]) for name in classes}
        most = sorted(classes, key=lambda name: -counts[name])[: max(table_height - 2, 0)]
        classes = [name for name in classes if name in most]
    lines: list[RenderableType] = [head]
    if not tight:
        lines.append(_origin(state))
        left -= 1
    body: list[RenderableType] = []
    if _counted(state) is None:
        body.append(Text("no window yet", style="italic dim"))
    else:
        body.append(_table(state, classes, width=width))
        if left >= 7 and width >= 60:
            body.append(_Chart(state, rows=min(left - 3, 16)))
    return [*lines, *body, *foot, *events]


def _headline(state: DeviceState, *, now: float) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append_text(_state(state))
    line.append(f"  {state.name}", style="bold")
    if state.run_id:
        line.append("   run ", style="dim").append(state.run_id)
    run = state.run or {}
    for label, key in (("sample", "sample_id"), ("operator", "operator")):
        if run.get(key):
            line.append(f"   {label} ", style="dim").append(str(run[key]))
    detail = (state.status or {}).get("detail")
    if detail:
        line.append(f"   {detail}", style="yellow")
    age = now - state.seen_at
    if age > 5.0 and state.state not in ("disconnected", "lost"):
        line.append(f"   silent for {age:.0f} s", style="yellow")
    return line


def _state(state: DeviceState) -> Text:
    style, mark = _STATES.get(state.state, ("dim", "?"))
    return Text(f"{mark} {state.state}", style=style)


def _origin(state: DeviceState) -> Text:
    info, parts = state.info or {}, []
    model = info.get("model") or {}
    if model.get("name"):
        parts.append(f"model {model['name']} {model.get('version', '')}".strip())
    calibration = info.get("calibration") or {}
    if calibration.get("id"):
        checked = "" if calibration.get("calibrated", True) else " (not calibrated)"
        parts.append(f"calibration {calibration['id']}{checked}")
    if info.get("backend"):
        parts.append(str(info["backend"]))
    source = (state.run or {}).get("source")
    if source:
        # Last, for it may be long.
        parts.append(str(source))
    return Text("  ·  ".join(parts), style="dim", no_wrap=True, overflow="ellipsis")


def _counted(state: DeviceState) -> Mapping[str, Any] | None:
    """The message with the counts of the run: its total, else the only thing that has come."""
    return state.total if state.total is not None else state.window


def _classes(state: DeviceState) -> list[str]:
    body = _counted(state)
    return [] if body is None else list(body["counts"])


def _colour(name: str, position: int) -> str:
    return _COLOURS.get(name) or _SPARE[position % len(_SPARE)]


def _per_ml(state: DeviceState, name: str, size: str) -> float | None:
    body = _counted(state)
    if body is None:
        return None
    value = (body["per_ml"].get(name) or {}).get(size)
    return None if value is None else float(value)


def _number(value: float | None) -> str:
    """A concentration for reading: three digits at least, no more than are worth it."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def _label(name: str) -> str:
    return name.replace("_", " ")


def _table(state: DeviceState, classes: Sequence[str], *, width: int) -> Table:
    body = _counted(state)
    assert body is not None
    sizes, with_counts, with_shares = _columns(width, names=classes)
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    table.add_column("particles per mL", no_wrap=True, min_width=10)
    for size in sizes:
        table.add_column(f"≥ {size} µm", justify="right", no_wrap=True, min_width=8)
    if with_counts:
        table.add_column("counted", justify="right", no_wrap=True, min_width=8)
    if with_shares:
        table.add_column(" share", justify="left", no_wrap=True, width=19)
    total = max(int(body["n"]), 1)
    for position, name in enumerate(classes):
        n = sum(body["counts"][name])
        style = _colour(name, list(body["counts"]).index(name))
        cells: list[RenderableType] = [Text(f"■ {_label(name)}", style=style)]
        cells += [_cell_of_table(_per_ml(state, name, s)) for s in sizes]
        if with_counts:
            cells.append(Text(f"{n:,}", style="" if n else "dim"))
        if with_shares:
            cells.append(_bar(n / total, style=style, width=12))
        table.add_row(*cells, end_section=position == len(classes) - 1)
    cells = [Text("  all", style="bold"), *(Text(_number(_per_ml(state, "all", s)), style="bold") for s in sizes)]
    if with_counts:
        cells.append(Text(f"{int(body['n']):,}", style="bold"))
    table.add_row(*cells)
    return table


def _columns(width: int, *, names: Sequence[str]) -> tuple[list[str], bool, bool]:
    """Which sizes, and whether counts and shares, fit beside the names; a number is never cut."""
    left = width - max((len(n) for n in names), default=14) - 2
    # What is looked at most comes first: the reporting sizes of the pharmacopoeias, then the others.
    sizes = [size for size in ("10", "25", "2", "5", "50", "70") if (left := left - 10) >= 0 or size == "10"]
    with_counts = (left := left - 10) >= 0
    return [size for size in SIZES if size in sizes], with_counts, left >= 21


def _cell_of_table(value: float | None) -> Text:
    """A concentration; what is nothing recedes, so that the eye finds what is something."""
    return Text(_number(value), style="" if value else "dim")


def _bar(share: float, *, style: str, width: int) -> Text:
    """A share as a bar with its per cent behind it."""
    eighths = round(share * width * 8)
    if share > 0:
        eighths = max(eighths, 1)
    full, rest = divmod(eighths, 8)
    text = "█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")
    bar = Text(" ").append(text, style=style)
    per_cent = 100 * share
    shown = "" if share == 0 else "<1 %" if per_cent < 1 else f"{per_cent:.0f} %"
    return bar.append(f" {shown}", style="dim")


class _Chart:
    """Particles per mL in each size bin as columns of log height, coloured by the share of each class."""

    def __init__(self, state: DeviceState, *, rows: int) -> None:
        self._state = state
        self._rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        body = _counted(self._state)
        assert body is not None
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
        colours = [_colour(name, k) for k, name in enumerate(classes)]
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


def _totals_line(state: DeviceState) -> Text:
    body = _counted(state)
    line = Text(no_wrap=True, overflow="ellipsis")
    if body is None:
        return line
    rejected = {k: v for k, v in body["rejected"].items() if v and not k.startswith("frame_")}
    line.append("run      ", style="dim")
    line.append(f"{int(body['n']):,} particles in {_volume(body['volume_ml'])}")
    line.append(f", {int(body['frames']):,} frames")
    for label, key in (("lost", "frames_lost"), ("left out", "frames_rejected")):
        if body[key]:
            line.append(f", {int(body[key]):,} {label}", style="yellow")
    if rejected:
        text = ", ".join(f"{k.replace('_', ' ')} {v:,}" for k, v in rejected.items())
        line.append(f"   not counted: {text}", style="dim")
    return line


def _volume(value: float) -> str:
    return f"{value:.3g} mL" if value >= 0.1 else f"{1000 * value:.3g} µL"


def _window_lines(state: DeviceState) -> list[Text]:
    body = state.window
    if body is None or body["run_id"] != state.run_id:
        return []
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append("window   ", style="dim")
    line.append(
        f"#{int(body['seq'])}  {float(body['t0_s']):.1f}–{float(body['t1_s']):.1f} s  {int(body['n']):,} particles"
    )
    rate = state.particles_per_s
    if rate is not None:
        line.append(f", {60 * rate:,.0f}/min")
    ten = (body["per_ml"].get("all") or {}).get("10")
    line.append(f", {_number(ten)} /mL ≥ 10 µm")
    if int(body.get("windows", 1)) > 1:
        line.append(f"   {int(body['windows'])} windows in one", style="yellow")
    if body.get("replayed"):
        line.append("   delivered late", style="yellow")
    return [line]


def _stats_lines(state: DeviceState, *, tight: bool) -> list[Text]:
    body = state.stats
    if body is None or state.state in ("disconnected", "lost"):
        return []
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append("device   ", style="dim")
    line.append(f"{float(body.get('frames_per_s_out', 0)):.1f} frames/s")
    line.append(f", {60 * float(body.get('particles_per_s', 0)):,.0f} particles/min")
    waiting, dropped = int(body.get("waiting", 0)), int(body.get("frames_dropped", 0))
    line.append(f", {waiting:,} messages waiting", style="yellow" if waiting > 20 else "")
    if dropped:
        line.append(f", {dropped:,} frames dropped", style="yellow")
    if not tight:
        for name, stage in (body.get("stages") or {}).items():
            line.append(f"   {name} {float(stage['p99_ms']):.1f} ms", style="dim")
        for name, value in (body.get("temperatures_c") or {}).items():
            line.append(f"   {name} {float(value):.0f} °C", style="dim")
    return [line]


def _event_lines(state: DeviceState, *, most: int) -> list[Text]:
    lines = []
    for event in list(state.events)[-most:] if most else []:
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(f"{str(event.get('t', ''))[11:19]:<9}", style="dim")
        line.append(str(event.get("text", "")), style=_SEVERITY.get(str(event.get("severity")), ""))
        lines.append(line)
    return lines


def plain_line(topic: str, payload: bytes, device: DeviceState) -> str | None:
    """One line for a log, None for a message that is not worth one."""
    kind = topic.rsplit("/", 1)[-1]
    if kind == "status":
        return f"{device.name} {device.state}"
    if kind == "histogram" and device.window is not None:
        body = device.window
        ten = _number((body["per_ml"].get("all") or {}).get("10"))
        return f"{device.name} run {body['run_id']} window {body['seq']}: {body['n']} particles, {ten} /mL >= 10 um"
    if kind == "event" and device.events:
        return f"{device.name} {device.events[-1].get('severity')}: {device.events[-1].get('text')}"
    if kind == "summary" and device.summary is not None:
        ten = _number((device.summary["per_ml"].get("all") or {}).get("10"))
        return (
            f"{device.name} run {device.summary['run_id']} ended: {device.summary['n']} particles, {ten} /mL >= 10 um"
        )
    return None


class LiveView:
    """Subscribes and draws until it is left; a ``with`` block of a program that does something else meanwhile.

    Parameters
    ----------
    address
        The broker.
    site, device
        Show only these.
    prefix
        First level of the topics.
    console
        Where to draw; None: standard output.
    screen
        Whether to use the terminal's second screen, which leaves no trace; otherwise the last picture stays.
    refresh_hz
        Pictures per second.
    """

    def __init__(
        self,
        address: BrokerAddress,
        *,
        site: str | None = None,
        device: str | None = None,
        prefix: str = "mfi",
        console: Console | None = None,
        screen: bool = False,
        refresh_hz: float = 4.0,
    ) -> None:
        self.board = Board(site=site, device=device)
        self.console = Console() if console is None else console
        self.subscriber = Subscriber(
            address,
            topic_filter=f"{prefix}/{TREE_VERSION}/{site or '+'}/{device or '+'}/#",
            on_message=self.board.take,
        )
        self._live = Live(
            get_renderable=self.picture,
            console=self.console,
            screen=screen,
            refresh_per_second=refresh_hz,
            vertical_overflow="crop",
        )

    def picture(self) -> RenderableType:
        """What is known now, drawn for the console as it is now."""
        width, height = self.console.size
        return render(self.board.devices(), width=width, height=height - 1, heading=self.heading())

    def heading(self) -> str:
        """Where we listen, and what is wrong with it."""
        where = str(self.subscriber.address)
        devices = self.board.devices()
        # A program that ends takes its embedded broker with it: that is the end, not a fault of the link.
        ended = bool(devices) and all(d.state == "disconnected" for d in devices)
        if self.subscriber.connected or self.subscriber.stopped or ended:
            return where
        return f"no link: {self.subscriber.problem}" if self.subscriber.problem else f"connecting to {where}"

    def __enter__(self) -> "LiveView":
        self.subscriber.start()
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        self.subscriber.stop()


def is_dumb(console: Console) -> bool:
    """Whether a live picture makes no sense here: a pipe, a file, a terminal without cursor."""
    return not console.is_terminal or os.environ.get("TERM", "") in ("dumb", "unknown")
