"""Limits that an operator sets, by a file and by name, and the table of them in the guide."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import httpx
import pytest

from modelwright.cli import main
from modelwright.errors import ModelwrightError
from modelwright.serving.engine import Engine
from modelwright.serving.limits import MAY_BE_0, Limits, limits_of
from tests.serving.parts import running

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "serving.md"


def test_a_file_and_names_set_limits_the_names_last(tmp_path):
    file = tmp_path / "limits.yaml"
    file.write_text("connections: 500\ntotal_seconds: 60\nbody_bytes: 1000\n")
    found = limits_of(file, ["connections=7", "queue_seconds=1.5"])
    assert found == Limits(connections=7, total_seconds=60, body_bytes=1000, queue_seconds=1.5)
    assert limits_of(None, []) == Limits()


@pytest.mark.parametrize(
    ("given", "said"),
    [(["conections=7"], r"no option 'conections' \(did you mean 'connections'\?\)"),
     (["connections"], "no NAME=VALUE"), (["connections=1", "connections=2"], "given twice"),
     (["connections=many"], r"limits\.connections: .*'many'"), (["models=-1"], "not be negative"),
     (["body_bytes=0"], "0 would refuse everything"), (["write_seconds=1e9"], "a week"),
     (["total_seconds=nan"], r"limits\.total_seconds")],
    ids=str,
)  # fmt: skip
def test_a_limit_that_is_none_is_one_line(given, said):
    with pytest.raises(ModelwrightError, match=said) as error:
        limits_of(None, given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [("conections: 7", r"limits\.yaml: no option 'conections' \(did you mean 'connections'"),
     ("- 7", "mapping"), ("7: 7", "mapping"), ("a: [", "correct it"), ("", "mapping"),
     ("models: [1]", r"limits\.yaml: models"), (None, "no such file")],
    ids=str,
)  # fmt: skip
def test_a_file_that_is_wrong_is_one_line(tmp_path, text, said):
    file = tmp_path / "limits.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ModelwrightError, match=said) as error:
        limits_of(file, [])
    assert "\n" not in str(error.value)


def test_zero_is_nothing_where_it_may_be():
    assert {f.name for f in fields(Limits)} >= MAY_BE_0
    assert limits_of(None, [f"{name}=0" for name in sorted(MAY_BE_0)]).total_seconds == 0


def test_the_command_says_what_is_wrong_with_a_limit(tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text("name: a\n")
    assert main(["serve", str(tmp_path), "--limit", "conections=1"]) == 2
    assert "did you mean 'connections'?" in capsys.readouterr().err
    rates = ["--limit", "tokens_a_minute=1", "--tokens-a-minute", "2"]
    assert main(["serve", str(tmp_path), *rates]) == 2
    assert "limits.tokens_a_minute: given twice" in capsys.readouterr().err
    assert main(["serve", str(tmp_path), "--allow-origin", "*"]) == 2
    assert "no word for all" in capsys.readouterr().err


def test_bodies_and_headers_have_the_limits_that_are_set(model, codec):
    limits = Limits(body_bytes=2000, header_bytes=1000)
    ask = {"model": "tiny", "prompt": "a", "max_tokens": 1}
    with running(Engine(model, codec), limits=limits) as served, httpx.Client() as http:
        url = f"{served.url}/v1/completions"
        assert http.post(url, json=ask).status_code == 200
        refused = http.post(url, json={**ask, "prompt": "a" * 2000})
        assert refused.status_code == 413 and "larger than 2000 bytes" in refused.text
        assert http.get(f"{served.url}/health", headers={"x": "a" * 1500}).status_code == 400


def test_the_guide_has_every_limit_with_its_unit_default_and_meaning():
    """The table is made of the class and its docstring: correct one, and copy what is shown."""
    about = dict(re.findall(r"^ +(\w+): (.+)\.$", str(Limits.__doc__), re.MULTILINE))
    units = {"seconds": "s", "bytes": "bytes", "minute": "a minute"}
    rows = ["| limit | unit | default | |", "|---|---|---|---|"]
    for field in fields(Limits):
        unit = units.get(field.name.rpartition("_")[2], "")
        meaning = about[field.name].replace("``", "`")
        rows.append(f"| `{field.name}` | {unit} | {field.default:,.0f} | {meaning} |")
    assert "\n".join(rows) in GUIDE.read_text(encoding="utf-8"), "\n" + "\n".join(rows)
