"""The report as a reader opens it."""

import re
from collections.abc import Iterator
from pathlib import Path

import browser
import pytest

from edge_app.recording.record_reader import open_record
from edge_app.reporting.pdf import BROWSERS, find_browser, write_pdf
from edge_app.reporting.report import build_report

pytestmark = pytest.mark.skipif(find_browser() is None, reason=f"no Chromium here ({', '.join(BROWSERS)})")

A4_INNER_PX = (680, 998)
"""180 x 264 mm at 96 px per inch: the sheet less the margins of the style sheet."""


@pytest.fixture(scope="module")
def html(simulated: Path) -> bytes:
    return build_report([simulated], limits=["usp-788", "usp-787"], container_ml=2.0)


@pytest.fixture(scope="module")
def opened(html: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Page]:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_bytes(html)
    with browser.open_browser() as page:
        page.open(path)
        yield page


def test_it_loads_nothing_and_logs_nothing(opened: browser.Page) -> None:
    assert opened.problems == []
    asked = [url for url in opened.requests if not url.startswith("data:")]
    assert len(asked) == 1
    assert asked[0].startswith("file:///")


def test_every_picture_is_drawn(opened: browser.Page) -> None:
    sizes = opened.evaluate("[...document.images].map(i => i.complete ? i.naturalWidth : 0)")
    assert len(sizes) > 60
    assert min(sizes) > 0


def test_every_link_leads_somewhere(opened: browser.Page) -> None:
    links = opened.evaluate("[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))")
    assert len(links) > 200
    assert all(link.startswith("#") for link in links)
    missing = opened.evaluate(
        "[...document.querySelectorAll('a')].map(a => a.getAttribute('href').slice(1))"
        ".filter(id => !document.getElementById(id))"
    )
    assert missing == []
    ids = opened.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))


def test_every_bar_lists_its_particles(opened: browser.Page, simulated: Path) -> None:
    with open_record(simulated) as record:
        histogram = record.total().histogram
    bars = opened.evaluate(
        "[...document.querySelectorAll('svg.plot a .hit')].map(r => r.parentNode.getAttribute('href'))"
    )
    assert len(bars) >= 15
    for bar in bars:
        index = int(bar.rpartition("-")[2])
        counted = int(histogram.counts[:, index].sum())
        # A real click: the link itself has to lead there.
        opened.evaluate(
            f"document.querySelector('svg.plot a[href=\"{bar}\"]')"
            ".dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true, view: window}))"
        )
        opened.wait_for(f"location.hash === '{bar}' && document.querySelector('tr.chosen')?.id === '{bar[1:]}'")
        rows = opened.evaluate("document.querySelectorAll('#r1-explorer tbody tr').length")
        assert rows == min(counted, 100)
        said = opened.evaluate("document.querySelector('#r1-explorer .range').textContent")
        assert (f"of {counted:,}" in said) if counted else ("no particle" in said)
    assert opened.problems == []


def test_a_listed_particle_is_the_one_of_the_record(opened: browser.Page, simulated: Path) -> None:
    with open_record(simulated) as record:
        particles = record.particles()
    opened.evaluate("location.hash = '#r1-bin-8'")
    opened.wait_for("document.querySelector('tr.chosen')?.id === 'r1-bin-8'")
    cells = opened.evaluate("[...document.querySelector('#r1-explorer tbody tr').cells].map(c => c.textContent)")
    window, row = map(int, cells[0].split("-"))
    i = int(((particles.window == window) & (particles.row == row)).nonzero()[0][0])
    p = particles.particles
    assert cells[1:6] == [
        str(p.frame[i]),
        f"{p.time_s[i]:.2f}",
        f"{p.x_px[i]}, {p.y_px[i]}",
        f"{p.width_px[i]} × {p.height_px[i]}",
        f"{p.ecd_um[i]:.2f}",
    ]
    assert 5.0 <= float(cells[5]) <= 6.3
    assert cells[8] == particles.class_names[i].replace("_", " ")


def test_the_list_turns_its_pages(opened: browser.Page, simulated: Path) -> None:
    with open_record(simulated) as record:
        counts = record.total().histogram.counts.sum(0)
    fullest = int(counts.argmax())
    assert counts[fullest] > 100, "the run is too short for this test"
    opened.evaluate(f"location.hash = '#r1-bin-{fullest}'")
    opened.wait_for(f"document.querySelector('tr.chosen')?.id === 'r1-bin-{fullest}'")
    first = opened.evaluate("document.querySelector('#r1-explorer tbody td').textContent")
    opened.evaluate("document.querySelectorAll('#r1-explorer button')[1].click()")
    assert opened.evaluate("document.querySelector('#r1-explorer .range').textContent").startswith("101")
    assert opened.evaluate("document.querySelector('#r1-explorer tbody td').textContent") != first


def test_a_picture_leads_to_its_row_and_back(opened: browser.Page) -> None:
    pairs = opened.evaluate(
        "[...document.querySelectorAll('.gallery figure[id]')].map(f => {"
        "const row = document.getElementById(f.querySelector('a').getAttribute('href').slice(1));"
        "return [f.id, row.querySelector('a').getAttribute('href').slice(1)]})"
    )
    assert len(pairs) > 40
    assert all(there == back for there, back in pairs)


def test_a_narrow_screen_shows_the_verdicts_and_never_scrolls_as_a_whole(opened: browser.Page) -> None:
    opened.on_a_screen(width_px=390, height_px=800)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    verdicts = opened.evaluate(
        "[...document.querySelectorAll('.limits .verdict')]"
        ".map(e => e.getBoundingClientRect()).map(r => [r.left, r.right])"
    )
    assert len(verdicts) == 4
    assert all(0 <= left < right <= 390 for left, right in verdicts)
    # Words of a diagram stay large enough to read; it scrolls in its own box.
    assert opened.evaluate("document.querySelector('svg.plot').getBoundingClientRect().width") >= 600


def test_nothing_is_cut_in_print(opened: browser.Page) -> None:
    width, height = A4_INNER_PX
    opened.as_printed(width_px=width, height_px=height)
    wide = opened.evaluate(
        "[...document.querySelectorAll('table, figure, svg, .gallery')]"
        ".filter(e => e.getBoundingClientRect().width > 0)"
        f".filter(e => e.getBoundingClientRect().right > {width} + 1).map(e => e.outerHTML.slice(0, 200))"
    )
    assert wide == []
    cut = opened.evaluate(
        "[...document.querySelectorAll('th, td')].filter(e => e.scrollWidth > e.clientWidth + 1)"
        ".map(e => e.outerHTML.slice(0, 120))"
    )
    assert cut == []
    # Chromium keeps a box together only if it fits on a page: rows always, short tables and galleries as a whole.
    tall = opened.evaluate(
        "[...document.querySelectorAll('tr, table.whole, .gallery-block, figure.chart, .sign')]"
        f".filter(e => e.getBoundingClientRect().height > {height}).map(e => e.outerHTML.slice(0, 120))"
    )
    assert tall == []
    broken = opened.evaluate(
        "[...document.querySelectorAll('tr, table.whole, .gallery-block, figure.chart, .sign')]"
        ".filter(e => getComputedStyle(e).breakInside !== 'avoid').length"
    )
    assert broken == 0
    heads = opened.evaluate(
        "[...document.querySelectorAll('thead')]"
        ".filter(e => getComputedStyle(e).display !== 'table-header-group').length"
    )
    assert heads == 0


def test_the_pdf_is_a4(html: bytes, tmp_path: Path) -> None:
    write_pdf(html, tmp_path / "report.pdf")
    data = (tmp_path / "report.pdf").read_bytes()
    assert data.startswith(b"%PDF-")
    boxes = set(re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", data))
    assert {(round(float(w) / 72 * 25.4), round(float(h) / 72 * 25.4)) for w, h in boxes} == {(210, 297)}
