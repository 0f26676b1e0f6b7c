"""Personal data: what is found, what is not, and that masking leaves nothing behind."""

from __future__ import annotations

import itertools
import json
import lzma
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.data.operations.pii import Operation
from modelwright.data.pii import checks
from modelwright.data.pii.mask import KINDS, USUAL, Finder, fixed, keyed, numbered
from modelwright.data.pii.names import Names
from modelwright.errors import ModelwrightError

ALL = Finder(frozenset(USUAL))

FOUND = [
    ("email", "Write to john.o'hara+x@mail.example.co.uk today."),
    ("email", "（zhang_san@qq.com）"),
    ("email", "邮箱ｚｈａｎｇ＠ｑｑ．ｃｏｍ。"),
    ("phone", "call (212) 555-0123 now"),
    ("phone", "手机13812345678，"),
    ("phone", "１３８１２３４５６７８"),
    ("phone", "座机（0755）26001234"),
    ("phone", "+44 20 7946 0958"),
    ("phone", "Tel: 04121 98765"),
    ("ip", "from 93.184.216.34:8080"),
    ("ip", "at 2001:4860:4860::8888."),
    ("card", "4111 1111 1111 1111 exp 12/27"),
    ("card", "378282246310005"),
    ("iban", "GB29 NWBK 6016 1331 9268 19"),
    ("iban", "DE89370400440532013000,"),
    ("ssn", "SSN 078-05-1120"),
    ("ssn", "social security number 078 05 1120"),
    ("cn_id", "身份证11010519491231002X"),
    ("secret", "password=hunter2x!"),
    ("secret", "密码：abc12345xyz"),
    ("secret", "key AKIAIOSFODNN7EXAMPLE"),
    ("secret", "https://user:s3cr3tpw@example.org/"),
    ("secret", "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nab+/=\n-----END RSA PRIVATE KEY-----"),
    ("secret", "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg"),
    ("secret", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.SflKxwRJSMeKKF2QT4fwpM"),
]
NOTHING = [
    "ISBN 978-0-306-40615-7",
    "2023-10-11 and 11/10/2023, 1998-2003, 1914 - 1918",
    "$1,234,567.00 or 15000000000元",
    "version 1.2.3.4, section 3.1.22.105, Chrome/41.0.2272.118",
    "doi = 10.1002/andp.19053220607 and 10.1016/j.cell.2008.10.015",
    "3.14159265358979 and 0.13812345678",
    "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "std::vector a::b 10:30:45 2:1",
    "password = getpass.getpass(); token: str | None",
    "The secret: nobody knew it. A secret: 'You don't",
    "icon@2x.png @user a@b",
    "4111 1111 1111 1112",  # no Luhn digit
    "11010519491231002Y 110105194912310021",
    "192.168.0.17 and 127.0.0.1",
    "GB29 NWBK 6016 1331 9268 18",
    "000-12-3456, 666-12-3456, 912-34-5678",
]


@pytest.mark.parametrize(("kind", "text"), FOUND)
def test_what_is_personal_is_found_whole(kind: str, text: str) -> None:
    masked, counts = ALL.mask(text, fixed)
    assert counts == {kind: 1}
    assert f"[{kind.upper()}]" in masked
    assert not re.search(r"[0-9]{5}|@|hunter|MIIE|SflK|s3cr", masked)


@pytest.mark.parametrize("text", NOTHING)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert ALL.spans(text) == []


def test_private_addresses_are_a_choice() -> None:
    both = Finder(frozenset({"ip"}), private=True)
    assert both.mask("192.168.0.17, fe80::1", fixed)[0] == "[IP], [IP]"


def test_a_vehicle_needs_its_check_digit() -> None:
    finder = Finder(frozenset({"vin"}))
    assert finder.mask("VIN 1HGBH41JXMN109186.", fixed)[0] == "VIN [VIN]."
    assert finder.spans("VIN 1HGBH41J1MN109186.") == []
    assert ALL.spans("VIN 1HGBH41JXMN109186.") == []  # only where it is asked for


PIECES = st.sampled_from([text for _, text in FOUND] + NOTHING)
WORDS = st.text(
    alphabet=st.one_of(
        st.sampled_from("0123456789+-. ()@:/_=[]{}'\"\n，。１＠aBé中"), st.characters(codec="utf-8")
    ),
    max_size=40,
)
TEXTS = st.lists(st.one_of(PIECES, WORDS), max_size=8).map("".join)


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_masking_twice_is_masking_once(text: str) -> None:
    for tag in (fixed, keyed(b"a key")):
        once, counts = ALL.mask(text, tag)
        assert ALL.spans(once) == []
        assert ALL.mask(once, tag) == (once, {})
        assert len(once) <= len(text) + 20 * sum(counts.values())


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_spans_are_ordered_apart_and_inside(text: str) -> None:
    spans = ALL.spans(text)
    assert all(0 <= a < b <= len(text) and kind in KINDS for a, b, kind in spans)
    assert all(x[1] <= y[0] for x, y in itertools.pairwise(spans))


@settings(max_examples=200, deadline=None)
@given(TEXTS, st.sampled_from(FOUND), TEXTS)
def test_what_is_planted_between_other_text_is_found(
    before: str, planted: tuple[str, str], after: str
) -> None:
    text = f"{before}\n. {planted[1]}\n{after}"
    start = len(before) + 3
    covered = [s for s in ALL.spans(text) if s[0] < start + len(planted[1]) and s[1] > start]
    # A private key that was cut off before it may reach to an end mark behind it.
    swallowed = any(a <= start and b >= start + len(planted[1]) for a, b, _ in covered)
    assert swallowed or planted[0] in {kind for _, _, kind in covered}


@given(st.text(alphabet="0123456789", min_size=12, max_size=18))
def test_luhn_catches_every_changed_digit(body: str) -> None:
    good = next(body + d for d in "0123456789" if checks.luhn(body + d))
    for place in range(len(good)):
        other = good[:place] + str((int(good[place]) + 1) % 10) + good[place + 1 :]
        assert not checks.luhn(other)


def test_a_value_keeps_its_number_within_a_text() -> None:
    text = "a@x.org wrote to b@x.org; A@X.ORG again, and [EMAIL_2] was here"
    masked, _ = ALL.mask(text, numbered(text))
    assert masked == "[EMAIL_1] wrote to [EMAIL_3]; [EMAIL_1] again, and [EMAIL_2] was here"


def test_a_key_gives_the_same_name_everywhere_and_another_key_another() -> None:
    one, other = keyed(b"one"), keyed(b"other")
    assert one("email", "A@x.org") == one("email", "a@x.org") != other("email", "a@x.org")
    assert re.fullmatch(r"\[EMAIL_[a-p]{10}\]", one("email", "a@x.org"))


def test_names_of_a_list_in_both_scripts() -> None:
    names = Names.of(["Anna Kowalska", "Mei", "王小明", "# a note", ""])
    finder = Finder(frozenset({"name"}), names=names)
    text = "Anna Kowalska met Mei, not mei, at 王小明家; Annabel stayed."
    assert finder.mask(text, fixed)[0] == "[NAME] met [NAME], not mei, at [NAME]家; Annabel stayed."


def test_a_step_counts_masks_and_writes_no_value(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"of mine")
    step = Operation(mask=("email",), count=("phone",), style="keyed", key=str(key)).begin()
    row = {
        "text": "me@x.org, 13812345678",
        "meta": {"by": "me@x.org", "tags": ["me@x.org", 3]},
        "attributes": {},
    }
    assert step(row) is None
    assert row["attributes"] == {"pii.email": 3, "pii.phone": 1, "pii.total": 4}
    assert "me@x.org" not in json.dumps(row)
    assert "13812345678" in row["text"]
    assert row["meta"]["by"] == row["meta"]["tags"][0] == row["text"].partition(",")[0]


def test_rows_with_too_much_leave() -> None:
    step = Operation(most=1).begin()
    assert step({"text": "a@x.org b@x.org", "attributes": {}}) == "too much personal data"
    assert step({"text": "a@x.org", "attributes": {}}) is None
    assert step({"text": None, "media": b"", "attributes": {}}) is None


def test_the_key_is_part_of_the_fingerprint_and_not_in_it(tmp_path: Path) -> None:
    key = tmp_path / "key"
    found = []
    for secret in (b"one", b"two"):
        key.write_bytes(secret)
        found.append(Operation(style="keyed", key=str(key)).assets())
    assert found[0] != found[1]
    assert "one" not in json.dumps(found)


@pytest.mark.parametrize(
    ("settings_", "said"),
    [
        ({"mask": ("emial",)}, "did you mean 'email'"),
        ({"style": "stars"}, "fixed, numbered, keyed"),
        ({"style": "keyed"}, "key: FILE"),
        ({"mask": ("name",)}, "names: FILE"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused(settings_: dict, said: str) -> None:
    with pytest.raises(ModelwrightError, match=re.escape(said)):
        Operation(**settings_)


def test_planted_values_do_not_survive_in_real_reviews(data: Callable[[str], Path]) -> None:
    from benchmarks.data import pii, planted_pii

    with lzma.open(data("imdb/train.jsonl.xz"), "rt", encoding="utf-8") as stream:
        reviews = [json.loads(line)["text"] for _, line in zip(range(300), stream, strict=False)]
    draw = random.Random(1)
    for _ in range(25):
        for kind, make in planted_pii.KINDS.items():
            before, value = make(draw)
            text, start = pii.planted(draw, draw.choice(reviews), before, value)
            masked, counts = ALL.mask(text, fixed)
            assert value not in masked
            assert counts[kind] >= 1
            assert any(s <= start and e >= start + len(value) for s, e, _ in ALL.spans(text))


@pytest.mark.parametrize("piece", ["1 ", "a@", "-----BEGIN PRIVATE KEY-----", "::1", "password="])
def test_hostile_texts_take_time_in_proportion(piece: str) -> None:
    """Not timed: a quadratic search over a megabyte would not end within the suite's limit."""
    assert isinstance(ALL.spans(piece * (400_000 // len(piece))), list)
