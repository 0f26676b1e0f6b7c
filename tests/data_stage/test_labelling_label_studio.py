"""Label Studio's tasks: what goes in comes out, and labels travel both ways."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.cli import main
from modelwright.data.labelling.label_studio import (
    Annotation,
    Box,
    Choices,
    Other,
    Prediction,
    Task,
    TextArea,
    interface,
    read_tasks,
    task_json,
    tasks_of,
    write_tasks,
)
from modelwright.errors import ModelwrightError

names = st.text(max_size=12)
percent = st.floats(0, 100, allow_nan=False)
strings = st.lists(names, max_size=3).map(tuple)
named = {"from_name": names, "to_name": names, "more": st.just({})}
results = st.one_of(
    st.builds(Choices, strings, **named),
    st.builds(TextArea, strings, **named),
    st.builds(Box, percent, percent, percent, percent, strings, percent, **named),
    st.builds(Other, st.fixed_dictionaries({"type": st.sampled_from(["labels", "keypointlabels"]),
                                            "value": st.dictionaries(names, names)})),
)  # fmt: skip
found = st.lists(results, max_size=3).map(tuple)
extra = st.dictionaries(st.text(min_size=1, max_size=5).map(lambda k: "x_" + k), names, max_size=2)
number = st.none() | st.floats(-1e6, 1e6)
tasks = st.lists(
    st.builds(
        Task,
        st.none() | st.integers() | names,
        st.dictionaries(names, names | st.integers(), max_size=3),
        st.lists(st.builds(Prediction, found, st.none() | names, number, extra), max_size=2).map(
            tuple
        ),
        st.lists(
            st.builds(
                Annotation, found, st.none() | st.integers() | names, number, st.booleans(),
                st.booleans(), extra,
            ),
            max_size=2,
        ).map(tuple),
        extra,
    ),
    max_size=3,
)  # fmt: skip


@given(tasks)
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read_again(made):
    written = json.loads(json.dumps([task_json(task) for task in made]))
    assert tasks_of(written) == made


EXPORT = [
    {
        "id": 7, "data": {"image": "/data/a.jpg"}, "file_upload": "a.jpg", "total_annotations": 1,
        "predictions": [],
        "annotations": [{
            "id": 3, "completed_by": {"id": 1, "email": "ann@example.org"}, "lead_time": 4.25,
            "was_cancelled": False, "ground_truth": True, "created_at": "2026-01-31T08:00:00.5Z",
            "result": [
                {"id": "x1", "type": "rectanglelabels", "from_name": "box", "to_name": "image",
                 "original_width": 640, "original_height": 480, "image_rotation": 0,
                 "value": {"x": 10, "y": 25, "width": 50, "height": 50, "rotation": 0,
                           "rectanglelabels": ["cell"]}},
                {"type": "brushlabels", "from_name": "b", "to_name": "image",
                 "value": {"rle": [1, 2], "brushlabels": ["cell"]}},
            ],
        }],
    }
]  # fmt: skip


def test_an_export_with_boxes_keeps_what_is_not_ours(tmp_path: Path):
    (tmp_path / "e.json").write_text(json.dumps(EXPORT))
    (task,) = read_tasks(tmp_path / "e.json")
    (annotation,) = task.annotations
    box, brush = annotation.results
    assert isinstance(box, Box) and box.labels == ("cell",)
    assert box.pixels(640, 480) == (64.0, 120.0, 384.0, 360.0)
    assert isinstance(brush, Other)
    assert (annotation.completed_by, annotation.lead_time) == ("ann@example.org", 4.25)
    assert annotation.ground_truth and annotation.choice is None
    write_tasks(tmp_path / "again.json", [task])
    (again,) = json.loads((tmp_path / "again.json").read_text())
    expected = json.loads(json.dumps(EXPORT[0]))
    expected["annotations"][0]["completed_by"] = "ann@example.org"
    assert again == expected


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"data": {}}, "a list of tasks"),
        ([1], r"\[0\]: an object"),
        ([{"id": 1}], r"\[0\].data: an object"),
        ([{"data": {}, "annotations": {}}], r"annotations: a list"),
        ([{"data": {}, "annotations": [{"lead_time": "1"}]}], r"lead_time: a finite number"),
        ([{"data": {}, "annotations": [{"was_cancelled": "no"}]}], r"was_cancelled: true or false"),
        ([{"data": {}, "annotations": [{"result": [{
            "type": "rectanglelabels", "from_name": "a", "to_name": "b",
            "value": {"x": "1", "y": 1, "width": 1, "height": 1, "rectanglelabels": []}}]}]}],
         r"result\[0\].value.x: a finite number"),
    ],
)  # fmt: skip
def test_a_bad_export_is_one_line_that_says_where(value, said, tmp_path):
    (tmp_path / "e.json").write_text(json.dumps(value))
    with pytest.raises(ModelwrightError, match=said) as told:
        read_tasks(tmp_path / "e.json")
    assert "\n" not in str(told.value)


def test_the_interface_is_xml_whatever_the_labels():
    reader = pytest.importorskip("defusedxml.ElementTree", reason="defusedxml is not installed")
    root = reader.fromstring(interface(['a"b', "<c>", "好"], "text"))
    assert [choice.get("value") for choice in root.iter("Choice")] == ['a"b', "<c>", "好"]


def test_labels_travel_out_and_back_by_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"r{i}", "text": f"text {i}"} for i in range(4)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [
        {"id": "r0", "action": "label", "label": "pos", "who": "ann", "at": "2026-01-31T08:00:00",
         "seconds": 2.5},
        {"id": "r1", "action": "skip", "label": None, "who": "ann", "at": "2026-01-31T08:00:01",
         "seconds": None},
        {"id": "r0", "action": "label", "label": "neg", "who": "bob", "at": "2026-01-31T08:00:02",
         "seconds": 1.0},
    ]  # fmt: skip
    Path("labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    base = ["label", "rows.jsonl", "--labels", "pos,neg"]
    assert main([*base, "--export", "tasks.json"]) == 0
    assert "<Choice value=" in capsys.readouterr().out
    made = read_tasks(Path("tasks.json"))
    assert [len(task.annotations) for task in made] == [2, 1, 0, 0]
    assert made[1].annotations[0].was_cancelled
    assert main([*base, "--import", "tasks.json", "--out", "other.jsonl"]) == 0
    assert "3 decisions added of 4 tasks" in capsys.readouterr().out
    back = [json.loads(line) for line in Path("other.jsonl").read_text().splitlines()]
    key = lambda one: (one["who"], one["id"])  # noqa: E731
    for one, other in zip(sorted(back, key=key), sorted(lines, key=key), strict=True):
        same = ("id", "action", "label", "who", "seconds")
        assert {k: one[k] for k in same} == {k: other[k] for k in same}
        assert one["at"].startswith(other["at"])
    assert main([*base, "--import", "tasks.json", "--out", "other.jsonl"]) == 0
    assert "0 decisions added of 4 tasks, 3 were there" in capsys.readouterr().out
    assert main([*base, "--agreement", "--out", "other.jsonl"]) == 0
    said = capsys.readouterr().out
    assert "1 rows labelled by" in said and "Cohen's kappa of ann and bob" in said
