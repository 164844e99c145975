from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_app.errors import UserError
from training.datasets.groups import GroupRule, read_split

FILES = ("oil/a.png", "oil/b.png", "oil/run7/c.tif", "oil/run7/c.tif page 2", "rest/a.png", "rest/d.png")


def groups_of(tmp_path: Path, text: str, files: tuple[str, ...] = FILES) -> list[str]:
    table = tmp_path / "groups.csv"
    table.write_bytes(text.encode() if isinstance(text, str) else text)
    return GroupRule(table=table).groups_of(files).group.tolist()


PLAIN = "file,group\noil/a.png,1\noil/b.png,2\noil/run7/c.tif,3\nrest/a.png,4\nrest/d.png,5\n"


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.replace("file,group", "FILE , Group"),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        "\ufeff" + PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("/", "\\"),
        "\n".join(f"2024-03-01,{line},x" for line in PLAIN.replace("file,group", "file,group").splitlines()).replace(
            "2024-03-01,file,group,x", "date,file,group,comment"
        ),
        "\n".join(f"D:\\lab\\pictures\\{line}" for line in PLAIN.replace("/", "\\").splitlines()).replace(
            "D:\\lab\\pictures\\file", "file"
        ),
        PLAIN.replace("\noil", "\n/home/a/data/oil").replace("\nrest", "\n./rest"),
        PLAIN.replace("oil/b.png", "b.png").replace("rest/d.png", "d.png").replace("oil/run7/c.tif", "run7/c.tif"),
        PLAIN.replace("oil/b.png", "Oil/B.PNG"),
        PLAIN + "\n\n",
        PLAIN + "oil/a.png,1\nelsewhere/x.png,9\n",
    ],
)
def test_tables_as_labs_write_them(tmp_path: Path, text: str) -> None:
    assert groups_of(tmp_path, text) == ["1", "2", "3", "3", "4", "5"]


def test_what_the_table_holds_besides_is_counted(tmp_path: Path) -> None:
    table = tmp_path / "groups.csv"
    table.write_text(PLAIN + "oil/a.png,1\na/x.png,9\na/y.png,9\n")
    found = GroupRule(table=table).groups_of(FILES)
    assert (found.repeated, found.without_picture) == (1, 2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PLAIN.replace("rest/d.png,5\n", ""), "no group for rest/d.png; every picture"),
        ("file,group\noil/a.png,1\n", "no group for oil/b.png and 4 more"),
        (PLAIN + "rest\\d.png,6\n", "entry 6: rest/d.png is in group 5 and in group 6"),
        (PLAIN + "d.png,6\n", "entry 6: rest/d.png is in group 5 and in group 6"),
        (PLAIN.replace("oil/a.png", "a.png"), "entry 1: a.png may be oil/a.png or rest/a.png; give the class folder"),
        (PLAIN.replace("oil/b.png", "oil/b"), "entry 2: oil/b does not end like a picture file"),
        (PLAIN.replace("oil/b.png,2", "oil/b.png,"), "entry 2: file or group is empty"),
        ("name,run\noil/a.png,1\n", "columns are name, run, needed are file, group"),
        ("", "columns are none, needed are file, group"),
        ("file,group\n", "no entry below the header"),
        (PLAIN + "oil/a.png,1,2,3\n", "1 line(s) do not have the 2 columns"),
        ("\x89PNG\x00\x01\x02,\x03", "columns are not those of a table"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        groups_of(tmp_path, text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_longer_path_must_end_with_the_class_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no group for oil/b\.png"):
        groups_of(tmp_path, PLAIN.replace("oil/b.png", "raw/b.png"))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"group_regex": r"run(\d+)"}, ["1", "12", "12"]),
        ({"group_regex": r"run\d+"}, ["run1", "run12", "run12"]),
        ({"group_regex": r"(s\d)/run(\d+)"}, ["s1-1", "s1-12", "s2-12"]),
        ({"group_by": "folder"}, ["s1", "s1", "s2"]),
        ({"group_by": "folder:2"}, ["run1", "run12", "run12"]),
    ],
)
def test_the_path_may_tell_the_group(rule: dict[str, str], expected: list[str]) -> None:
    files = ("oil/s1/run1/a.png", "oil/s1/run12/b.png", "rest/s2/run12/c.png")
    assert GroupRule.of(where="data", **rule).groups_of(files).group.tolist() == expected


def test_the_class_folder_is_never_the_group() -> None:
    files = ("run1oil/a.png", "run2rest/b.png")
    with pytest.raises(UserError, match=r"gives no group for run1oil/a\.png and 1 more"):
        GroupRule.of(group_regex=r"run(\d)", where="data").groups_of(files)
    with pytest.raises(UserError, match=r"gives no group for run1oil/a\.png"):
        GroupRule.of(group_by="folder", where="data").groups_of(files)


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({}, "nothing says which pictures belong together"),
        ({"groups": Path("g.csv"), "group_by": "folder"}, "--groups and --group-by are given"),
        ({"group_by": "file"}, "--group-by is file, allowed are folder"),
        ({"group_regex": "run("}, "not a regular expression"),
    ],
)
def test_exactly_one_rule(given_: dict, said: str) -> None:
    with pytest.raises(UserError, match=said.replace("(", r"\(")):
        GroupRule.of(where="data", **given_)


GROUP = np.array(["1", "2", "3", "3", "1", "2"])


def split(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "split.csv"
    path.write_text(text)
    train, test = read_split(path, files=FILES, group=GROUP)
    assert not (train & test).any()
    return ["train" if a else "test" if b else "-" for a, b in zip(train, test, strict=True)]


def test_a_split_by_group_and_by_file(tmp_path: Path) -> None:
    by_group = split(tmp_path, "group;side;note\n1;train;\n2;TEST;\n3;train;x\n4;test;\n")
    assert by_group == ["train", "test", "train", "train", "train", "test"]
    by_file = split(tmp_path, "file,side\noil/a.png,train\nrest/a.png,train\nb.png,test\nd.png,test\n")
    assert by_file == ["train", "test", "-", "-", "train", "test"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "file,side\noil/a.png,train\nrest/a.png,test\n",
            "group 1 stands on two sides (oil/a.png in train, rest/a.png in test)",
        ),
        ("group,side\n1,train\n2,test\n3,test\n1,test\n", "entry 4: group 1 stands on two sides, train and test"),
        ("group,side\n1,train\n2,test\n", "group 3 of the data has no side"),
        ("group,side\n1,train\n2,validation\n3,test\n", "side validation is not known, allowed are train and test"),
        ("group,side\n1,train\n2,train\n3,train\n", "no picture in test"),
        ("group,fold\n1,2\n", "needed are group, side or file, side"),
        ("file,side\nx/y.png,train\n", "no picture in train"),
    ],
)
def test_splits_that_cannot_be_used(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        split(tmp_path, text)
    assert said in str(error.value)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=40))
def test_no_split_ever_parts_a_group(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, bool]]) -> None:
    files = tuple(f"c/{i}.png" for i in range(len(rows)))
    group = np.array([str(g) for g, _ in rows])
    path = tmp_path_factory.mktemp("split") / "s.csv"
    path.write_text("file,side\n" + "".join(f"c/{i}.png,{'test' if t else 'train'}\n" for i, (_, t) in enumerate(rows)))
    parted = {g for g, t in rows if t} & {g for g, t in rows if not t}
    one_sided = len({t for _, t in rows}) == 1
    if parted or one_sided:
        with pytest.raises(UserError):
            read_split(path, files=files, group=group)
    else:
        train, test = read_split(path, files=files, group=group)
        assert test.tolist() == [t for _, t in rows]
        assert np.array_equal(train, ~test)
