"""Whatever is altered in a record is found and named."""

import shutil
import sqlite3

import numpy as np
import pytest
import recorded_runs as runs
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_app.errors import UserError
from edge_app.recording.audit import AuditEntry, Manifest, row_sha256, verify_record
from edge_app.recording.record_reader import open_record
from edge_app.recording.schema import AUDITED_TABLES, NewerRecordError

CHAINED = (*AUDITED_TABLES, "audit")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = runs.write_run(tmp_path_factory.mktemp("original"), windows=3)
    verdict = verify_record(path)
    assert verdict.ok
    assert verdict.first_broken is None
    assert (verdict.entries, verdict.windows, verdict.finished) == (6, 3, True)
    return path


def altered(value, draw):
    """The same value with one byte, or one bit of it, changed."""
    if value is None:
        return 0
    if isinstance(value, bytes):
        at = draw(st.integers(0, len(value) - 1))
        return value[:at] + bytes([value[at] ^ draw(st.integers(1, 255))]) + value[at + 1 :]
    if isinstance(value, str):
        if not value:
            return "x"
        at = draw(st.integers(0, len(value) - 1))
        return value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :]
    if isinstance(value, float):
        return value * 1.0000001 + 1e-9
    return value ^ (1 << draw(st.integers(0, 20)))


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_change_of_any_byte_of_any_row_is_found_and_named(original, tmp_path_factory, data):
    path = tmp_path_factory.mktemp("altered") / original.name
    shutil.copy(original, path)
    table = data.draw(st.sampled_from(CHAINED))
    connection = sqlite3.connect(path)
    cursor = connection.execute(f"SELECT * FROM {table}")
    names, rows = [c[0] for c in cursor.description], cursor.fetchall()
    row = data.draw(st.sampled_from(rows))
    at = data.draw(st.integers(0, len(names) - 1))
    value = altered(row[at], data.draw)
    keys = AUDITED_TABLES.get(table, ("id",))
    where = " AND ".join(f"{k} = ?" for k in keys)
    try:
        connection.execute(
            f"UPDATE {table} SET {names[at]} = ? WHERE {where}", (value, *(row[names.index(k)] for k in keys))
        )
    except sqlite3.IntegrityError:
        return  # the new key is another row's: the file itself refuses
    finally:
        connection.commit()
        connection.close()
    verdict = verify_record(path)
    assert not verdict.ok
    assert verdict.first_broken is not None
    if table in AUDITED_TABLES and names[at] not in (*keys, "audit_id"):
        assert "/".join([table, *(str(row[names.index(k)]) for k in keys)]) in verdict.first_broken
        assert "altered" in verdict.first_broken
    else:
        assert table in verdict.first_broken or names[at] in keys


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_a_row_taken_away_is_found(original, tmp_path_factory, data):
    path = tmp_path_factory.mktemp("less") / original.name
    shutil.copy(original, path)
    table = data.draw(st.sampled_from(CHAINED))
    connection = sqlite3.connect(path)
    keys = AUDITED_TABLES.get(table, ("id",))
    rows = connection.execute(f"SELECT {', '.join(keys)} FROM {table}").fetchall()
    row = data.draw(st.sampled_from(rows[:-1] if table == "audit" else rows))
    connection.execute(f"DELETE FROM {table} WHERE {' AND '.join(f'{k} = ?' for k in keys)}", row)
    connection.commit()
    connection.close()
    assert not verify_record(path).ok


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("INSERT INTO meta VALUES ('note', '\"x\"', 1)", "meta/note: added"),
        ("INSERT INTO meta VALUES ('note', '\"x\"', 99)", "meta/note: belongs to no audit entry"),
        ("INSERT INTO events VALUES (99, 't', NULL, NULL, 'k', 's', 'm', '{}', 5)", "events/99: added"),
        ("INSERT INTO pictures SELECT seq, 999, kinds, class, confidence, ecd_um, sample_key, frame, x_px, y_px,"
         " width_px, height_px, png FROM pictures WHERE seq = 1 LIMIT 1", "pictures/1/999: added"),
        ("INSERT INTO particle_columns SELECT 77, position, name, dtype, codec, data FROM particle_columns LIMIT 1",
         "particle_columns/77: belongs to no window"),
        ("INSERT INTO windows SELECT 9, first_frame, last_frame, t0_s, t1_s, frames, frames_lost, frames_rejected,"
         " rejected, volume_ml, counts, weighted, row_count, frames_sha256, 77 FROM windows LIMIT 1",
         "windows/9: belongs to no audit entry"),
        ("DELETE FROM audit WHERE id = 3", "audit/3: missing"),
        ("DELETE FROM audit", "belongs to no audit entry"),
        ("CREATE TRIGGER t AFTER INSERT ON windows BEGIN DELETE FROM events; END", "trigger t"),
        ("DROP TABLE outbox", "table outbox"),
        ("CREATE TABLE more (x)", "table more"),
        ("PRAGMA application_id = 7", "not a run record"),
    ],
)  # fmt: skip
def test_what_is_added_or_taken_away_is_named(original, tmp_path, statement, named):
    path = tmp_path / original.name
    shutil.copy(original, path)
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()
    verdict = verify_record(path)
    assert not verdict.ok
    assert named in (verdict.first_broken or "")


def test_an_end_cut_off_is_found_with_a_head_kept_elsewhere(original, tmp_path):
    path = tmp_path / original.name
    shutil.copy(original, path)
    head = verify_record(path).head
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM meta WHERE audit_id = 6")
    connection.execute("DELETE FROM audit WHERE id = 6")
    connection.commit()
    connection.close()
    alone = verify_record(path)
    assert alone.ok, "without its head elsewhere a shorter chain is still a chain"
    assert not alone.finished
    verdict = verify_record(path, expected_head=head)
    assert not verdict.ok
    assert "cut" in (verdict.first_broken or "")


def dump(path):
    connection = sqlite3.connect(path)
    try:
        return [connection.execute(f"SELECT * FROM {table}").fetchall() for table in CHAINED]
    finally:
        connection.close()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_flipped_byte_of_the_file_is_found_or_changes_no_row(original, tmp_path_factory, data):
    content = bytearray(original.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("flipped") / original.name
    path.write_bytes(content)
    try:
        verdict = verify_record(path)
    except NewerRecordError:
        return  # the byte of the version: nothing is said of such a file but that a newer program is needed
    if verdict.ok:
        assert dump(path) == dump(original)
    else:
        assert verdict.first_broken
        assert "\n" not in verdict.first_broken
    # A reader gets through, or says in one line that the record is damaged; never anything else.
    problem = None
    try:
        with open_record(path) as record:
            record.particles()
            record.summary()
            record.pictures()
            list(record.events())
    except UserError as error:
        problem = str(error)
    assert problem is None or (not verdict.ok and path.name in problem)


def test_rows_of_other_types_or_splits_have_other_hashes():
    rows = [("1",), (1,), (1.0,), (b"1",), (None,), ("", "1"), ("1", ""), ("12",), ("1", "2"), ()]
    assert len({row_sha256("t", r) for r in rows}) == len(rows)
    assert row_sha256("t", ("1",)) != row_sha256("u", ("1",))


def test_an_entry_is_hashed_as_canonical_json():
    import hashlib

    manifest = Manifest()
    manifest.add("meta", {"key": "é", "value": "1", "audit_id": 1})
    entry = AuditEntry(
        id=1,
        time="2026-11-21T07:45:00.000Z",
        user="anna",
        action="created",
        reason="run started",
        manifest=manifest.text,
        content_sha256="c",
        previous_sha256="p",
        entry_sha256="",
    )
    expected = (
        '{"action":"created","content_sha256":"c","id":1,"previous_sha256":"p","reason":"run started",'
        '"time":"2026-11-21T07:45:00.000Z","user":"anna"}'
    )
    assert entry.computed_sha256() == hashlib.sha256(expected.encode()).hexdigest()
    assert manifest.text == rfc8785.dumps(manifest.rows).decode()
    assert list(manifest.rows) == ["meta/é"]


def test_a_value_is_hashed_by_what_sqlite_stores_and_nothing_else_is_taken():
    stored = row_sha256("t", [1, 0.5, "a", b"a", None])
    assert row_sha256("t", [True, np.float64(0.5), np.str_("a"), b"a", None]) == stored
    assert row_sha256("t", [1, 0.5, b"a", "a", None]) != stored
    with pytest.raises(TypeError, match="int64"):
        row_sha256("t", [np.int64(1)])
