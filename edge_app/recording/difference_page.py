"""A difference of two records as one HTML file: no script, no network, prints on A4."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import chain
from typing import Final

from edge_app.recording.difference import ALL, Change, Difference, RecordNumbers, change_text

__all__ = ["difference_page"]

_STYLE: Final = """
:root { --ink: #1c2733; --soft: #5c6b7a; --line: #d9e0e7; --back: #f5f7f9; --up: #b45309; --down: #1d6fb8; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", sans-serif; }
main { max-width: 62rem; margin: 2rem auto; padding: 2rem 2.5rem; background: #fff; border: 1px solid var(--line);
  border-radius: 10px; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p { margin: .4rem 0; } .soft { color: var(--soft); } .warn { color: #9a3412; font-weight: 600; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; break-inside: avoid; }
th { text-align: left; font-weight: 600; color: var(--soft); border-bottom: 2px solid var(--line); }
td, th { padding: .28rem .6rem; vertical-align: top; } tbody tr + tr td { border-top: 1px solid var(--line); }
.n { text-align: right; white-space: nowrap; } .up { color: var(--up); } .down { color: var(--down); }
code { font: 12.5px/1.45 ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.wide { overflow-x: auto; } @media screen and (max-width: 700px) { main { margin: 0; padding: 1.2rem 1rem; } }
.same { color: var(--soft); } .name { min-width: 9rem; } h2, thead { break-after: avoid; }
@media print { body { background: #fff; font-size: 11px; } main { border: 0; margin: 0; padding: 0; max-width: none; }
  @page { size: A4; margin: 15mm; } }
"""


def difference_page(difference: Difference) -> str:
    """Write the page: the whole file as text."""
    d = difference
    return "".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(d.child.run_id)} against {escape(d.parent.run_id)}</title><style>{_STYLE}</style></head>",
            f"<body><main><h1>Reanalysis of {escape(d.parent.run_id)}</h1>",
            f"<p>Reason: <strong>{escape(d.reason)}</strong></p>",
            '<p class="soft">Both records saw the same frames (SHA-256 over all pixels).</p>'
            if d.frames_agree
            else '<p class="warn">The frames are not shown to be the same: hashes differ or were not kept.</p>',
            "<p><strong>Every number is the same.</strong></p>" if d.same_numbers else "",
            _records(d),
            _changes("What was done differently", ("step", "parent", "child"), d.steps),
            _changes("Settings that changed", ("setting", "parent", "child"), d.settings),
            _sizes(d),
            _by_class(d),
            _counted("Particles by class", "class", d.parent.counts, d.child.counts),
            _counted("Left out", "reason", d.parent.rejected, d.child.rejected),
            _particles(d),
            "</main></body></html>\n",
        ]
    )


def _cell(text: str, kind: str = "") -> str:
    return f'<td class="{kind}">{text}</td>' if kind else f"<td>{text}</td>"


def _table(head: Sequence[str], rows: Iterable[str], *, numbers_from: int = 1) -> str:
    cells = [
        f'<th class="n">{h}</th>' if i >= numbers_from else f'<th class="name">{h}</th>' for i, h in enumerate(head)
    ]
    body = f"<table><thead><tr>{''.join(cells)}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="wide">{body}</div>'


def _change(parent: float | None, child: float | None) -> str:
    text = change_text(parent, child)
    if parent is None or child is None or parent == child:
        return _cell(text, "n same")
    return _cell(text, "n up" if child > parent else "n down")


def _words(name: str) -> str:
    return escape(name.replace("_", " "))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _row(name: str, parent: float | None, child: float | None) -> str:
    return f"<tr>{_cell(name)}{_cell(_number(parent), 'n')}{_cell(_number(child), 'n')}{_change(parent, child)}</tr>"


def _records(d: Difference) -> str:
    def row(name: str, parent: str, child: str) -> str:
        return f"<tr>{_cell(name)}{_cell(parent)}{_cell(child)}</tr>"

    def frames(r: RecordNumbers) -> str:
        return f"{r.frames:,} analysed, {r.frames_rejected:,} left out, {r.frames_lost:,} lost"

    p, c = d.parent, d.child
    rows = [
        row("record", f"<code>{escape(p.run_id)}</code>", f"<code>{escape(c.run_id)}</code>"),
        row("made", escape(p.started), escape(c.started)),
        row("edge-app", escape(p.software), escape(c.software)),
        row("head of audit chain", f"<code>{p.head}</code>", f"<code>{c.head}</code>"),
        row("frames", frames(p), frames(c)),
        row("particles", f"{p.particles:,}", f"{c.particles:,}"),
        row("volume", f"{p.volume_ml * 1e3:,.4f} µL", f"{c.volume_ml * 1e3:,.4f} µL"),
    ]
    return "<h2>Records</h2>" + _table(("", "parent", "child"), rows, numbers_from=9)


def _changes(title: str, head: tuple[str, str, str], changes: Sequence[Change]) -> str:
    if not changes:
        return f'<h2>{title}</h2><p class="soft">Nothing.</p>'

    def value(text: str | None) -> str:
        return f"<code>{escape(text.replace('^', ', '))}</code>" if text else '<span class="soft">–</span>'

    rows = (f"<tr>{_cell(escape(c.name))}{_cell(value(c.parent))}{_cell(value(c.child))}</tr>" for c in changes)
    return f"<h2>{title}</h2>" + _table(head, rows, numbers_from=9)


def _sizes(d: Difference) -> str:
    p, c = d.parent.per_ml[ALL], d.child.per_ml[ALL]
    rows = (_row(f"≥ {s} µm", p[s], c[s]) for s in d.sizes)
    note = '<p class="soft">A dash: below the smallest size that the record reports, or nothing analysed.</p>'
    return "<h2>Particles per mL</h2>" + note + _table(("size", "parent", "child", "change"), rows)


def _by_class(d: Difference) -> str:
    def pair(name: str, size: str) -> str:
        before, after = (r.per_ml.get(name, {}).get(size) for r in (d.parent, d.child))
        if before == after:
            return _cell(_number(before), "n same")
        kind = "up" if (after or 0) > (before or 0) else "down"
        return _cell(f'{_number(before)}<br><span class="{kind}">{_number(after)}</span>', "n")

    rows = (
        f"<tr>{_cell(_words(name))}{''.join(pair(name, s) for s in d.sizes)}</tr>" for name in d.classes if name != ALL
    )
    head = ["class", *(f"≥ {s} µm" for s in d.sizes)]
    note = '<p class="soft">Where the two differ: parent above, child below.</p>'
    return "<h2>Particles per mL by class</h2>" + note + _table(head, rows)


def _counted(title: str, what: str, parent: Mapping[str, int], child: Mapping[str, int]) -> str:
    names = [n for n in dict.fromkeys(chain(parent, child)) if parent.get(n) or child.get(n)]
    if not names:
        return f'<h2>{title}</h2><p class="soft">Nothing in either.</p>'
    rows = (_row(_words(n), parent.get(n, 0), child.get(n, 0)) for n in names)
    return f"<h2>{title}</h2>" + _table((what, "parent", "child", "change"), rows)


def _particles(d: Difference) -> str:
    m = d.particles
    lines = [
        f"<p>{m.same_box:,} particles have the same frame and box in both records; {m.only_parent:,} are in the parent"
        f" alone, {m.only_child:,} in the child alone.</p>"
    ]
    if m.resized and m.size_ratio is not None:
        low, middle, high = m.size_ratio
        lines.append(
            f"<p>{m.resized:,} of them have another size: child / parent is {middle:.3f} in the median,"
            f" {low:.3f} to {high:.3f} for 90 % of all.</p>"
        )
    if m.reclassified:
        rows = (
            f"<tr>{_cell(_words(a))}{_cell(_words(b))}{_cell(f'{n:,}', 'n')}</tr>"
            for (a, b), n in m.reclassified.items()
        )
        lines.append(_table(("class in the parent", "class in the child", "particles"), rows, numbers_from=2))
    return "<h2>The particles themselves</h2>" + "".join(lines)
