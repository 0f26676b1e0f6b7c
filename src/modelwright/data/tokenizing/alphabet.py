"""The characters that stand for bytes in byte-level tokenizers, and the tokens of our layout."""

from __future__ import annotations

import re

END = "<|end|>"
ROLES = ("system", "user", "assistant")
SPECIAL = (END, *(f"<|{role}|>" for role in ROLES))

# Words with their leading space, numbers of at most three digits, punctuation runs, and white
# space kept in runs so that indentation is one token.
SPLIT = r" ?[A-Za-z]+|\p{N}{1,3}| ?[^\s\p{N}A-Za-z]+\n*|\s*\n|\s+(?!\S)|\s+"

_SURROGATES = re.compile("[\ud800-\udfff]")


def encodable(text: str) -> str:
    """The text with U+FFFD for lone surrogates, which no UTF-8 can spell; JSON may hold them."""
    try:
        text.encode()  # many times as fast as looking for them
    except UnicodeEncodeError:
        return _SURROGATES.sub("\ufffd", text)
    return text


def byte_characters() -> dict[int, str]:
    """The printable character that stands for each byte in byte-level BPE files.

    Printable Latin-1 bytes stand for themselves; the others take 256, 257, ... in order. This
    is the alphabet of the published GPT-2 vocabulary, which the tokenizers library writes.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in set(printable)]
    return {**{b: chr(b) for b in printable}, **{b: chr(256 + i) for i, b in enumerate(rest)}}
