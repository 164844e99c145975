"""The live terminal view: what a :class:`Board` knows, drawn for people.

:func:`render` makes a picture of a board for a given size and nothing else; :class:`LiveView` subscribes, draws and
repeats. Both ``edge-app watch`` and a run that shows itself use them, so both see what a lab's own software sees.
"""

import os
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from edge_app.classification.palette import class_colours
from edge_app.messaging.board import Board, DeviceState
from edge_app.messaging.live_chart import SizeChart
from edge_app.messaging.mqtt_url import BrokerAddress
from edge_app.messaging.subscriber import Subscriber
from edge_app.messaging.topics import TREE_VERSION

__all__ = ["LiveView", "plain_line", "render"]

SIZES: Final = ("2", "5", "10", "25", "50", "70")
"""Reporting sizes in um, columns of the table."""

_STATES: Final = {
    "running": ("bold green", "●"),
    "ready": ("green", "●"),
    "init": ("yellow", "●"),
    "stalled": ("bold yellow", "▲"),
    "degraded": ("bold yellow", "▲"),
    "error": ("bold red", "✖"),
    "lost": ("bold red", "✖"),
    "disconnected": ("dim", "○"),
}
_CALIBRATION: Final = {
    "valid": ("valid", "green"),
    "expired": ("EXPIRED", "bold red"),
    "not_calibrated": ("NOT CALIBRATED with beads", "bold yellow"),
}
_STATE_KEY: Final = "calibration_state"
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
    order = {"running": 3, "stalled": 3, "degraded": 3, "error": 3, "ready": 2, "init": 2}
    return max(devices, key=lambda d: (order.get(d.state, 0), d.total is not None, d.name))


def _others(devices: Sequence[DeviceState], main: DeviceState, *, rows: int) -> Table:
    grid = Table.grid(padding=(0, 2))
    for _ in range(4):
        grid.add_column(no_wrap=True, overflow="ellipsis")
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
    events = [] if tight else _event_lines(state, most=max(0, min(3, height - rows - len(foot) - 12)))
    table_height = rows + 1
    # Above it stand the device and its calibration.
    left = height - 2 - len(foot) - len(events) - table_height
    if classes and left < 0:
        table_height = max(height - 2 - len(foot), 3)
        counts = {name: sum((_counted(state) or {})["counts"][name]) for name in classes}
        most = sorted(classes, key=lambda name: -counts[name])[: max(table_height - 2, 0)]
        classes = [name for name in classes if name in most]
    lines: list[RenderableType] = [head, _calibration(state)]
    if not tight:
        lines.append(_origin(state))
        left -= 1
    body: list[RenderableType] = []
    if _counted(state) is None:
        body.append(Text("no window yet", style="italic dim"))
    else:
        body.append(_table(state, classes, width=width))
        if left >= 7 and width >= 60:
            counted = _counted(state)
            assert counted is not None
            body.append(SizeChart(counted, rows=min(left - 3, 16)))
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
    if info.get("backend"):
        parts.append(str(info["backend"]))
    source = (state.run or {}).get("source")
    if source:
        # Last, for it may be long.
        parts.append(str(source))
    return Text("  ·  ".join(parts), style="dim", no_wrap=True, overflow="ellipsis")


def _calibration(state: DeviceState) -> Text:
    """Id, state and age of the calibration, from the newest message that has them."""
    line = Text(no_wrap=True, overflow="ellipsis")
    words, style = _calibration_words(state)
    line.append("calibration ", style="dim").append(words, style=style)
    return line


def _calibration_words(state: DeviceState) -> tuple[str, str]:
    """The calibration in a few words, and the style that they deserve."""
    status = state.status or {}
    # A window says it of its own frames, as long as it is of the run in progress.
    window = state.window if state.window and status.get("run_id") in (None, state.window.get("run_id")) else None
    body = next((b for b in (window, status, state.total, state.info) if b and _STATE_KEY in b), None)
    if body is None:
        return "not stated", "yellow"
    id_ = body.get("calibration")
    name = str(id_.get("id", "") if isinstance(id_, Mapping) else id_)
    words, style = _CALIBRATION.get(str(body[_STATE_KEY]), (str(body[_STATE_KEY]), "yellow"))
    age = body.get("calibration_age_days")
    old = "" if age is None else f", {float(age):.0f} days old" if float(age) >= 2 else f", {24 * float(age):.0f} h old"
    return f"{name} {words}{old}".strip(), style


def _counted(state: DeviceState) -> Mapping[str, Any] | None:
    """The message with the counts of the run: its total, else the only thing that has come."""
    return state.total if state.total is not None else state.window


def _classes(state: DeviceState) -> list[str]:
    body = _counted(state)
    return [] if body is None else list(body["counts"])


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
    colours = class_colours(list(body["counts"]))
    for position, name in enumerate(classes):
        n = sum(body["counts"][name])
        style = colours[name]
        # The name in the terminal's own colour: not every class's is easy to read on every background.
        cells: list[RenderableType] = [Text("■ ", style=style).append(_label(name), style="default")]
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
        return f"{device.name} {device.state}; calibration {_calibration_words(device)[0]}"
    if kind == "histogram" and device.window is not None:
        body = device.window
        ten = _number((body["per_ml"].get("all") or {}).get("10"))
        line = f"{device.name} run {body['run_id']} window {body['seq']}: {body['n']} particles, {ten} /mL >= 10 um"
        return line + _doubt(body)
    if kind == "event" and device.events:
        return f"{device.name} {device.events[-1].get('severity')}: {device.events[-1].get('text')}"
    if kind == "summary" and device.summary is not None:
        ten = _number((device.summary["per_ml"].get("all") or {}).get("10"))
        return (
            f"{device.name} run {device.summary['run_id']} ended: {device.summary['n']} particles, {ten} /mL >= 10 um"
            + _doubt(device.summary)
        )
    return None


def _doubt(body: Mapping[str, Any]) -> str:
    """What is to be said of sizes behind every line with a number made of them; nothing where all is well."""
    found = str(body.get(_STATE_KEY, "valid"))
    return "" if found == "valid" else f" [{found.replace('_', ' ')}]"


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
