"""Text as it comes: whole characters, stop texts taken out, however the bytes are cut."""

from __future__ import annotations

import itertools

from hypothesis import example, given
from hypothesis import strategies as st

from modelwright.serving.spelling import TextStream


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({min(p, len(data)) for p in places} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(ends)]


def streamed(pieces: list[bytes], stop: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    stream = TextStream(stop)
    said = [stream.feed(piece) for piece in pieces]
    return [*said, stream.close()], stream.stopped


@given(st.text(), st.lists(st.integers(0, 60)))
def test_any_cut_of_the_bytes_gives_the_text_in_whole_characters(text, places):
    said, _ = streamed(cut(text.encode(), places))
    assert "".join(said) == text
    assert all("\ufffd" not in piece for piece in said) or "\ufffd" in text


@given(st.binary(), st.lists(st.integers(0, 40)))
def test_bytes_that_are_no_text_become_replacement_characters(data, places):
    said, _ = streamed(cut(data, places))
    whole = data.decode("utf-8", errors="replace")
    # Half a character at the very end is dropped instead of being replaced.
    assert "".join(said) in (whole, whole.removesuffix("\ufffd"))


letters = st.text(alphabet="ab🦊", max_size=12)
stops = st.lists(st.text(alphabet="ab🦊", min_size=1, max_size=4), max_size=3).map(tuple)


@given(letters, stops, st.lists(st.integers(0, 40)))
@example("abb", ("abb", "b"), [])
@example("xab", ("ab", "b"), [])
def test_the_text_ends_where_the_first_complete_stop_text_begins(text, stop, places):
    wanted, stopped = text, False
    for end in range(1, len(text) + 1):
        hits = [end - len(s) for s in stop if text[:end].endswith(s)]
        if hits:
            wanted, stopped = text[: min(hits)], True
            break
    said, was_stopped = streamed(cut(text.encode(), places), stop)
    assert ("".join(said), was_stopped) == (wanted, stopped)


def test_text_is_held_back_only_while_it_may_begin_a_stop_text():
    stream = TextStream(("\n\nQ:",))
    assert stream.feed(b"one\n") == "one"
    assert stream.feed(b"two") == "\ntwo"
    assert stream.feed("三".encode()[:2]) == ""
    assert stream.feed("三".encode()[2:]) == "三"
    assert stream.feed(b"\n\nQ") == ""
    assert stream.close() == "\n\nQ"
