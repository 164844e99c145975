from pathlib import Path

import numpy as np
import pytest

from edge_app.capture.particle_table import parse_number, read_table, read_text, to_column


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.csv").write_text("ECD(µm);Größe\n", encoding=encoding)
    assert read_text(tmp_path / "a.csv") == "ECD(µm);Größe\n"


@pytest.mark.parametrize(
    ("text", "thousands", "value"),
    [
        ("1.5", False, 1.5),
        ("1,5", False, 1.5),
        ("1,5", True, 1.5),
        ("1,234", True, 1234.0),
        ("1,234", False, 1.234),
        ("1.234,5", False, 1234.5),
        ("1,234.5", False, 1234.5),
        ("\u22122", False, -2.0),
        ('"3"', False, 3.0),
        ("2.659e+05", False, 265900.0),
    ],
)
def test_numbers(text: str, thousands: bool, value: float) -> None:
    assert parse_number(text, thousands_comma=thousands) == value


def test_columns_are_typed() -> None:
    assert to_column(["1", "2.0"]).dtype == np.int64
    np.testing.assert_array_equal(to_column(["1", "", "n/a"]), [1.0, np.nan, np.nan])
    assert to_column(["1", "x"]).tolist() == ["1", "x"]
    assert to_column(["", ""]).dtype.kind == "U"
    assert len(to_column([])) == 0


@pytest.mark.parametrize("separator", ["\t", ";", ",", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_header_is_found_below_other_lines(separator: str, newline: str) -> None:
    lines = ["Sample, lot 3; run | 7", "", separator.join(["a", "b c", "d", ""]), separator.join(["1", "2", "3", ""])]
    lines += [separator.join(["4", "5"]), "", separator.join(["7", "8", "9"])]
    table = read_table(newline.join(lines), is_header=lambda names: "b c" in names)
    assert table is not None
    assert table.names == ("a", "b c", "d")
    assert table.column("d").tolist() == [3, 9]
    assert table.ragged == 1


def test_quoted_fields() -> None:
    table = read_table('"a,x",b\n"1,5","2,000"\n', is_header=lambda names: "b" in names)
    assert table is not None
    assert table.column("a,x").tolist() == [1.5]
    assert table.column("b").tolist() == [2000]


def test_no_header() -> None:
    assert read_table("1,2\n3,4\n", is_header=lambda names: "b" in names) is None


@pytest.mark.parametrize("more", ["", "4,d\n" + "x," * 90_000])
def test_a_quote_that_is_never_closed_costs_its_own_line(more: str) -> None:
    text = 'id,name\n1,a\n2,"b\n3,c\n' + more
    table = read_table(text, is_header=lambda names: "id" in names)
    assert table is not None
    assert table.rows == [["1", "a"], ["2", "b"], ["3", "c"], *([["4", "d"]] if more else [])]
    assert table.ragged == (1 if more else 0)


def test_a_quote_that_another_line_closes_takes_no_row_with_it() -> None:
    table = read_table('id,name,size\n1,"a,2\n2,"b",3\n3,c,4\n', is_header=lambda names: "id" in names)
    assert table is not None
    assert [row[0] for row in table.rows] == ["2", "3"]
    assert table.ragged == 1


def test_a_quoted_field_may_hold_a_line_break() -> None:
    table = read_table('id,note\n1,"two\nlines"\n2,b\n', is_header=lambda names: "id" in names)
    assert table is not None
    assert [row[0] for row in table.rows] == ["1", "2"]
    assert table.ragged == 0


def test_a_line_without_end_is_no_header() -> None:
    assert read_table('"' + "a, " * 100_000, is_header=lambda names: True) is None


@pytest.mark.parametrize(
    ("text", "area", "size"),
    [
        ('area,size\n"1,024",5.255\n99,6.5\n', [1024, 99], [5.255, 6.5]),
        ('area,size\n1024,"5,255"\n99,"6,5"\n', [1024, 99], [5.255, 6.5]),
        ("area;size\n1.024;5,255\n99;6,5\n", [1024, 99], [5.255, 6.5]),
        ("area;size\n1024;5.255\n99;6.5\n", [1024, 99], [5.255, 6.5]),
        ("area;size\n1024;0,255\n99;0,125\n", [1024, 99], [0.255, 0.125]),
        ("area\tsize\n1.234.567\t1.024,5\n99\t6,5\n", [1234567, 99], [1024.5, 6.5]),
    ],
)
def test_a_table_has_one_decimal_sign(text: str, area: list[int], size: list[float]) -> None:
    table = read_table(text, is_header=lambda names: "area" in names)
    assert table is not None
    assert table.column("area").tolist() == area
    assert table.column("size").tolist() == size
