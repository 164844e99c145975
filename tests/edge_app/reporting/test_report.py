"""What the report says."""

import base64
import dataclasses
import hashlib
import re
import sqlite3
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import recorded_runs as runs
from simulated_runs import run_pipeline

from edge_app.classification.prevalence import corrected_class_counts
from edge_app.errors import UserError
from edge_app.measurement.concentration import difference, interval_per_ml
from edge_app.measurement.window import REJECTION_REASONS
from edge_app.recording.pictures import PicturePicker
from edge_app.recording.record_reader import open_record
from edge_app.recording.signature import check_signature, sign_report
from edge_app.reporting.number_text import class_text, interval_text, per_ml_text
from edge_app.reporting.optics import optics_summary
from edge_app.reporting.report import ReportSignature, build_report
from edge_app.reporting.run_facts import read_run


def text_of(html: bytes) -> str:
    """What a reader sees, tags and data left out."""
    body = re.sub(r"<(script|style)\b.*?</\1>", " ", html.decode(), flags=re.S)
    words = re.sub(r"<[^>]+>", " ", body)
    for code, sign in {"&lt;": "<", "&gt;": ">", "&#34;": '"', "&#39;": "'", "&amp;": "&"}.items():
        words = words.replace(code, sign)
    return " ".join(words.split())


def test_concentrations_are_those_of_the_record(simulated: Path) -> None:
    text = text_of(build_report([simulated], limits=["usp-788"], container_ml=2.0))
    with open_record(simulated) as record:
        windows = list(record.windows())
    for size in (2.0, 5.0, 10.0, 25.0):
        per_ml = interval_per_ml(windows, size)
        per_container = per_ml.scaled(2.0, unit="per container")
        for found in (per_ml, per_container):
            assert f"{per_ml_text(found.value)} {interval_text(found.low, found.high)}" in text
    inherent = interval_per_ml(windows, 5.0, class_name="protein_aggregate")
    row = text[text.index("inherent protein aggregate") :][:200]
    assert f"{per_ml_text(inherent.value)} {interval_text(inherent.low, inherent.high)}" in row


def test_a_comparison_informs_and_never_certifies(simulated: Path) -> None:
    html = build_report([simulated], limits=["usp-788", "ph-eur-2.9.19"], container_ml=2.0)
    text = text_of(html)
    assert "Compared with the limits of USP <788> (informational, flow imaging)" in text
    assert "shows no compliance" in text
    assert not re.search(r"\b(passes|passed|complies|compliant|conforms)\b", text, flags=re.I)
    assert "limit not verified" in text  # 2.9.19 was not read itself


def test_an_open_comparison_says_what_would_decide_it(simulated: Path) -> None:
    facts = read_run(simulated)
    value = next(r for r in facts.table.rows if r.kind == "all").cells[2].per_ml.value

    def words(share_of_limit: float) -> str:
        text = text_of(build_report([simulated], limits=["usp-788"], container_ml=6000.0 / value * share_of_limit))
        row = text[text.index("\N{GREATER-THAN OR EQUAL TO} 10 µm per container") :]
        return row[: row.index("25 µm per container")]

    assert re.search(r"\? inconclusive [\d.]+ (mL|µL) more would decide it at this rate", words(0.75))
    near = words(0.98)
    assert "? inconclusive volume and size scale alone reach the limit: no further volume decides" in near
    assert "volume, size scale ±" in near


def test_the_budget_tells_what_volume_shrinks_and_what_it_does_not(simulated: Path) -> None:
    text = text_of(build_report([simulated]))
    budget = text[text.index("Uncertainty budget, particles ≥ 10 µm") :]
    places = [
        budget.index(words)
        for words in (
            "random: shrinks with the analysed volume", " count ", "systematic: no volume shrinks it", "field area",
            "size scale", "coincidence", "all systematic parts", "combined",
        )
    ]  # fmt: skip
    assert places == sorted(places)
    assert "with volume and size scale the same, interval with k = 2" in text


def test_same_record_same_bytes(simulated: Path) -> None:
    first, second = (build_report([simulated], limits=["usp-788"], container_ml=1.0) for _ in range(2))
    assert first == second


def test_a_signature_does_not_change_the_next_report(tmp_path: Path) -> None:
    record = runs.write_run(tmp_path, windows=2)
    html = build_report([record])
    report = tmp_path / "report.html"
    report.write_bytes(html)
    sign_report(record, report, name="A. Example", meaning="review")
    assert check_signature(record, report).ok
    assert build_report([record]) == html


def test_the_signer_stands_in_the_report(simulated: Path) -> None:
    signature = ReportSignature(name="A. Example", meaning="approval", time="2026-11-21T09:00:00.123Z")
    text = text_of(build_report([simulated], signature=signature))
    assert "signed by A. Example meaning approval time 2026-11-21 09:00:00 UTC" in text


def test_hashes_of_everything_that_made_the_numbers(simulated: Path) -> None:
    text = text_of(build_report([simulated]))
    with open_record(simulated) as record:
        meta, identity = record.meta, record.identity
        head = list(record.audit())[-1].entry_sha256
    for value in (
        meta["frames_sha256"], identity["model_sha256"], identity["calibration_sha256"], identity["pipeline_id"], head,
        read_run(simulated).settings_sha256,
    ):  # fmt: skip
        assert len(value) == 64
        assert value in text
    assert "verified: OK" in text


def test_what_is_left_out_is_counted(simulated: Path) -> None:
    text = text_of(build_report([simulated]))
    with open_record(simulated) as record:
        total = record.total()
    assert total.frames_lost > 0
    assert f"frames lost {total.frames_lost}" in text
    for reason, number in total.rejected.items():
        assert f"{reason} {REJECTION_REASONS[reason]} {number:,} " in text
    assert "expected to overlap another" in text


def test_an_uncalibrated_run_says_so_at_the_top_and_on_each_page(tmp_path: Path) -> None:
    html = build_report([runs.write_run(tmp_path)])
    text = text_of(html)
    assert text.index("Not calibrated") < text.index("Cumulative numbers")
    assert "nominal-1.33um-100um" in text
    assert '@bottom-center { content: "NOT CALIBRATED"' in html.decode()
    assert "NOT CALIBRATED with beads" in text


def test_a_verdict_of_an_uncalibrated_run_says_that_it_is_indicative(tmp_path: Path) -> None:
    text = text_of(build_report([runs.write_run(tmp_path)], limits=["usp-788"], container_ml=2.0))
    wording = "Compared with the limits of USP <788> (informational, flow imaging)"
    assert f"{wording} – indicative only: not calibrated" in text


def test_a_calibrated_run_has_no_such_flag(simulated: Path) -> None:
    html = build_report([simulated])
    assert "NOT CALIBRATED" not in html.decode()
    assert "indicative only" not in text_of(build_report([simulated], limits=["usp-788"], container_ml=2.0))
    assert "Simulated data" in text_of(html)


def test_a_calibration_with_a_failed_check_or_without_certificate_is_flagged(tmp_path: Path) -> None:
    failed = {"calibrated": True, "certificate_id": "cal-1", "failed_checks": ("focal plane off the middle",)}
    for folder, changes, title, words in (
        ("a", failed, "Calibration check failed", "with a check not passed: focal plane off the middle."),
        ("b", {"calibrated": True}, "No certificate", "a change of it would not show"),
    ):
        calibration = runs.CALIBRATION.model_copy(update=changes)
        (tmp_path / folder).mkdir()
        info = {"uri": "dir:/frames", "kind": "dir"}
        with runs.create(tmp_path / folder, calibration=calibration.model_dump(), info=info) as record:
            record.finish({})
        text = text_of(build_report([record.path]))
        assert text.index(title) < text.index("No limits were chosen")
        assert words in text


def test_an_expired_calibration_is_flagged(tmp_path: Path) -> None:
    calibration = runs.CALIBRATION.model_copy(update={"calibrated": True, "expires": "2001-01-01T00:00:00Z"})
    with runs.create(tmp_path, calibration=calibration.model_dump()) as record:
        record.finish({})
    assert "Calibration expired" in text_of(build_report([record.path]))


def test_sizes_below_the_reporting_limit_are_named_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_APP_STATE", str(tmp_path / "state"))
    record = run_pipeline(tmp_path, source="sim:?frames=12&seed=2", **{"window.min_ecd_um": 5.0})
    facts = read_run(record)
    assert facts.reporting_limit_um == 5.0
    cells = facts.table.rows[0].cells
    assert [c.reported for c in cells] == [False, True, True, True, True, True]
    assert cells[0].per_ml is None
    assert "below reporting limit" in text_of(build_report([record]))
    assert all(row.bar.low_um >= 5.0 for row in facts.bins)


def test_the_smallest_mask_raises_the_reporting_limit(tmp_path: Path) -> None:
    settings = {"window": {"min_ecd_um": 2.0}, "segmentation": {"threshold": {"min_area_px": 9}}}
    with runs.create(tmp_path, settings=settings) as record:
        record.finish({})
    # 9 px of 1.33 um: 2 * sqrt(9 / pi) * 1.33
    assert read_run(record.path).reporting_limit_um == pytest.approx(4.502, abs=0.001)
    text = text_of(build_report([record.path], limits=["usp-788"], container_ml=1.0))
    assert "below reporting limit" in text


def test_a_run_without_particles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_APP_STATE", str(tmp_path / "state"))
    record = run_pipeline(tmp_path, source="sim:?concentration=0&frames=12&seed=2")
    facts = read_run(record)
    assert facts.total.particles == 0
    text = text_of(build_report([record], limits=["usp-788"], container_ml=1.0))
    high = interval_per_ml([facts.total], 10.0).high
    assert f"0 {interval_text(0.0, high)}" in text
    assert "No particle was counted." in text
    assert "No picture is in this record." in text


def test_a_run_without_frames(tmp_path: Path) -> None:
    with runs.create(tmp_path) as record:
        record.finish({})
    text = text_of(build_report([record.path], limits=["usp-788"], container_ml=1.0))
    assert "Nothing analysed" in text
    assert "there is nothing to compare with a limit" in text


def test_an_unfinished_record_is_flagged(tmp_path: Path) -> None:
    record = runs.write_run(tmp_path, finish=False)
    assert "Run not finished" in text_of(build_report([record]))


def test_an_altered_record_is_flagged(tmp_path: Path) -> None:
    record = runs.write_run(tmp_path)
    with sqlite3.connect(record) as connection:
        connection.execute("UPDATE windows SET volume_ml = volume_ml * 2 WHERE seq = 1")
    html = build_report([record])
    text = text_of(html)
    assert "The audit chain of the run record is broken: windows/1: altered" in text
    assert "RECORD ALTERED" in html.decode()


def test_text_from_outside_stays_text(tmp_path: Path) -> None:
    evil = '</title><script>alert("1")</script><img src=x onerror=alert(2)>\'"&{{ 7*7 }}'
    info = {"uri": f"dir:{evil}", "kind": "dir", "details": {"instrument": evil, "serial": evil}}
    with runs.create(tmp_path, info=info, extra={"sample": evil, "operator": evil}) as record:
        record.event("note", evil, severity="warning")
        record.finish({})
    html = build_report([record.path]).decode()
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert "{{ 7*7 }}" in html
    assert evil in text_of(html.encode())


def test_pictures_of_the_record(simulated: Path) -> None:
    facts = read_run(simulated)
    with open_record(simulated) as record:
        largest = {c: record.pictures("largest", class_name=c, limit=20) for c in record.classes}
        doubtful = {c: record.pictures("least_certain", class_name=c, limit=20) for c in record.classes}
    titles = {g.title: [p.particle_id for p in g.pictures] for g in facts.galleries}
    assert titles["silicone oil, largest"] == [p.particle_id for p in largest["silicone_oil"]]
    assert titles["unknown, largest"] == [p.particle_id for p in largest["unknown"]]
    shown_twice = [c for c in largest if c != "unknown" and f"{class_text(c)}, least certain" in titles]
    assert {"silicone_oil", "protein_aggregate"} <= set(shown_twice)
    for name in shown_twice:
        assert titles[f"{class_text(name)}, least certain"] == [p.particle_id for p in doubtful[name]]
    for name in set(largest) - set(shown_twice) - {"unknown"}:
        # All there are: shown once.
        assert {p.particle_id for p in doubtful[name]} <= {p.particle_id for p in largest[name]}
    assert {e.particle_id for e in facts.register} == {name for ids in titles.values() for name in ids}


def test_pictures_can_be_left_out(simulated: Path) -> None:
    html = build_report([simulated], pictures=False)
    assert b"<img" not in html
    assert "Left out of this report" in text_of(html)
    assert set(re.findall(r'href="#([^"]+)"', html.decode())) <= set(re.findall(r'\bid="([^"]+)"', html.decode()))


def test_the_register_names_the_bin_and_the_sizes_that_a_particle_entered(simulated: Path) -> None:
    facts = read_run(simulated)
    edges = facts.total.histogram.edges_um
    for entry in facts.register:
        assert edges[entry.bin] <= np.float32(entry.ecd_um) < edges[entry.bin + 1]
        assert entry.reached_um is None or entry.reached_um <= entry.ecd_um
        assert entry.weight > 0


def test_optics_are_shown_where_the_record_has_them(tmp_path: Path) -> None:
    empty_cell = np.full((1024, 1280), 204, np.uint8)
    optics = optics_summary(background=empty_cell, background_level=204.5, noise=0.0101, uneven=0.002)
    with runs.create(tmp_path) as record:
        record.finish({"optics": optics})
    html = build_report([record.path])
    text = text_of(html)
    assert "204.5" in text
    assert "1.01 %" in text
    picture = re.search(r'src="data:image/jpeg;base64,([^"]+)"', html.decode()).group(1)
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(picture), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert shown.shape == (512, 640)
    assert abs(float(shown.mean()) - 204.0) < 1.0


def test_it_says_how_far_the_classes_can_be_believed(simulated: Path, tmp_path: Path) -> None:
    with open_record(simulated) as record:
        scores = record.meta["bundle"]["measured"]["macro_f1_by_size_um"]["test"]
    text = text_of(build_report([simulated]))
    assert "5 – 8 µm 8 – 15 µm 15 – 70 µm particles that it was not taught" in text
    assert " ".join(f"{scores[size]:.2f}" for size in ("5-8", "8-15", "15-70")) in text
    assert "Classes not verified" not in text  # simulated pictures are what it was measured on
    bundle = {"name": "mfi-default", "measured": {"taught_on": "simulator", "macro_f1_by_size_um": {}}}
    with runs.create(tmp_path, info={"uri": "dir:/frames", "kind": "dir"}, bundle=bundle) as record:
        record.finish({})
    text = text_of(build_report([record.path]))
    assert text.index("Classes not verified") < text.index("No limits were chosen")
    assert "does not say how well its classifier does" in text


def test_frames_of_the_run_are_shown_with_the_background_behind_each(simulated: Path) -> None:
    strip = read_run(simulated).optics.strip
    assert len(strip) == 4
    assert strip[0].sequence == 0
    assert strip[-1].time_s > 0.75 * read_run(simulated).total.t1_s
    for moment in strip:
        for uri in (moment.frame_uri, moment.background_uri):
            data = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))
            assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE).shape == (320, 400)
    text = text_of(build_report([simulated]))
    assert f"frame {strip[-1].sequence}, {strip[-1].time_s:.1f} s" in text


def test_a_drift_of_the_focus_shows(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    with runs.create(tmp_path) as record:
        for seq in range(3):
            content = runs.window_content(rng, seq, per_frame=40)
            gradient = np.full(len(content.particles), 0.1 - 0.03 * seq, np.float32)
            record.commit_window(
                content.window,
                dataclasses.replace(content.particles, edge_gradient=gradient),
                class_index=content.class_index,
                confidence=content.confidence,
            )
        record.finish({})
    assert read_run(record.path).optics.focus == pytest.approx((0.1, 0.07, 0.04))


def test_class_counts_are_corrected_where_the_record_allows_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    content = runs.window_content(rng, 0, per_frame=80)
    prior = [0.4, 0.2, 0.2, 0.2]
    for name, bundle in (("with", {"name": "default", "assumed_mix": prior}), ("without", {"name": "default"})):
        with runs.create(tmp_path / name, bundle=bundle) as record:
            record.commit_window(
                content.window, content.particles, class_index=content.class_index, confidence=content.confidence,
                probabilities=content.probabilities,
            )  # fmt: skip
            record.finish({})
    corrected = read_run(tmp_path / "with").corrected
    p = content.particles
    chosen = p.ecd_um >= 10.0
    expected = corrected_class_counts(
        content.class_index[chosen], p.weight[chosen], classes=runs.CLASSES[:-1],
        probabilities=content.probabilities[chosen], assumed_prior=np.array(prior),
    )  # fmt: skip
    column = corrected.sizes_um.index(10.0)
    for k, name in enumerate(expected.classes):
        assert corrected.rows[name][column].value == pytest.approx(expected.corrected[k] / content.window.volume_ml)
    assert "corrected for the classifier's confusions" in text_of(build_report([tmp_path / "with"]))
    assert read_run(tmp_path / "without").corrected is None
    assert "corrected for" not in text_of(build_report([tmp_path / "without"]))


# -- aliquots -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aliquots(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("aliquots")
    return [
        runs.write_run(folder, windows=4, per_frame=30, seed=seed, run_id=f"20261121t07450{seed}z-000{seed}")
        for seed in range(4)
    ]


def test_aliquots_have_a_mean_and_a_scatter(aliquots: list[Path]) -> None:
    text = text_of(build_report(aliquots, limits=["usp-787"], container_ml=0.01, discard_first=True))
    facts = [read_run(path) for path in aliquots]
    values = [interval_per_ml(f.series, 10.0).value for f in facts]
    mean, sd = float(np.mean(values[1:])), float(np.std(values[1:], ddof=1))
    summary = text[text.index("mean of 3") :]
    assert per_ml_text(mean) in summary
    assert f"{100 * sd / mean:.1f} %" in summary
    assert "discarded" in text
    for f in facts:
        assert f.run_id in text


def test_fewer_aliquots_than_asked_for_are_named(aliquots: list[Path]) -> None:
    text = text_of(build_report(aliquots[:3], discard_first=True))
    assert "3 aliquots, the first one discarded; USP <787> and <788> ask for 4" in text


def test_each_aliquot_has_ids_of_its_own(aliquots: list[Path]) -> None:
    html = build_report(aliquots).decode()
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    links = set(re.findall(r'href="#([^"]+)"', html))
    assert links <= set(ids)
    assert {i.split("-")[0] for i in ids if "-bin-" in i} == {"r1", "r2", "r3", "r4"}


def test_different_samples_are_flagged(tmp_path: Path) -> None:
    paths = []
    for seed, sample in enumerate(("lot 1", "lot 2")):
        run_id = f"20261121t07450{seed}z-000{seed}"
        rng = np.random.default_rng(seed)
        content = runs.window_content(rng, 0, run_id=run_id)
        with runs.create(tmp_path, run_id=run_id, extra={"sample": sample}) as record:
            record.commit_window(
                content.window, content.particles, class_index=content.class_index, confidence=content.confidence
            )
            record.finish({})
        paths.append(record.path)
    assert "The runs name different samples: 'lot 1', 'lot 2'" in text_of(build_report(paths))


def test_a_blank_is_taken_off_in_a_table_of_its_own(aliquots: list[Path]) -> None:
    sample, blank = aliquots[:2]
    options = {"limits": ["usp-788"], "container_ml": 1.0}
    plain, text = text_of(build_report([sample], **options)), text_of(build_report([sample], blank=blank, **options))
    a, b = (read_run(path) for path in (sample, blank))
    found = difference(interval_per_ml(a.series, 10.0), interval_per_ml(b.series, 10.0))
    assert f"{per_ml_text(found.value)} {interval_text(found.low, found.high)}" in text
    assert b.run_id in text
    assert b.audit_head in text
    # Everything else stays as it was.
    start = text.index("Blank taken off")
    end = text.index("By class", start)
    assert text[:start] + text[end:] == plain


def test_a_sample_is_not_its_own_blank(simulated: Path) -> None:
    with pytest.raises(UserError, match="its own blank"):
        build_report([simulated], blank=simulated)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limits": ["usp-788"]}, "--container-ml"),
        ({"limits": ["usp-1"], "container_ml": 1.0}, "no limits named 'usp-1'"),
        ({"container_ml": 0.0}, "must be above 0"),
        ({"container_ml": float("nan")}, "must be above 0"),
        ({"discard_first": True}, "none is left"),
    ],
)
def test_wrong_options_are_one_line(simulated: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build_report([simulated], **options)
    assert "\n" not in str(caught.value)


def test_a_run_named_twice_is_refused(simulated: Path) -> None:
    with pytest.raises(UserError, match="named twice"):
        build_report([simulated, simulated])


# -- scale --------------------------------------------------------------------------------------------------------


def write_large(folder: Path, *, windows: int = 60, per_frame: int = 195) -> Path:
    """A record of some 35,000 particles with pictures."""
    rng = np.random.default_rng(1)
    picker = PicturePicker(classes=runs.CLASSES)
    with runs.create(folder) as record:
        for seq in range(windows):
            content = runs.window_content(rng, seq, per_frame=per_frame)
            sizes = (2.0 + rng.exponential(5.0, len(content.particles))).astype(np.float32)
            particles = dataclasses.replace(content.particles, ecd_um=sizes)
            window = runs.window_of(
                runs.RUN_ID, seq, particles, content.class_index, frames=3, rejected=dict(content.window.rejected)
            )
            for frame in np.unique(particles.frame):
                rows = particles.frame == frame
                ratio = rng.integers(150, 170, runs.SHAPE, np.uint8)
                picker.add(ratio, particles.take(rows), content.class_index[rows], content.confidence[rows])
            record.commit_window(
                window,
                particles,
                class_index=content.class_index,
                confidence=content.confidence,
                probabilities=content.probabilities,
                pictures=picker.close_window(),
            )
        record.finish({})
    return record.path


def test_35000_particles_in_5_s_and_15_mb(tmp_path: Path) -> None:
    path = write_large(tmp_path)
    with open_record(path) as record:
        assert len(record.particles()) >= 35_000
    # Processor time: the machine that runs the tests does other things beside.
    started = time.process_time()
    html = build_report([path], limits=["usp-788"], container_ml=1.0)
    assert time.process_time() - started < 5.0
    assert len(html) < 15_000_000
    assert (
        hashlib.sha256(build_report([path], limits=["usp-788"], container_ml=1.0)).digest()
        == hashlib.sha256(html).digest()
    )
