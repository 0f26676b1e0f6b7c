"""What is not mere digits: e-mail and IPv6 addresses, IBANs, vehicles, keys and passwords."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

from modelwright.data.pii import checks
from modelwright.data.pii.numbers import Span

KINDS = ("email", "ip", "iban", "vin", "secret")

_LOCAL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}\Z")
_DOMAIN = re.compile(r"@((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}([A-Za-z]{2,24}))")
# Ends of file names that follow an "@" in code: icon@2x.png, package@1.0.js.
_NOT_DOMAINS = frozenset(
    ("png", "jpg", "jpeg", "gif", "svg", "webp", "js", "ts", "css", "html", "py", "txt", "json")
)

_HEX_COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:")
_HEX_RUN = re.compile(r"[0-9A-Fa-f:.]{0,45}")
_HEX_TAIL = re.compile(r"[0-9A-Fa-f:.]*\Z")

# From its check digits on: digits are rarer than capitals, so the search has less to try.
_IBAN = re.compile(r"[0-9](?<=[A-Z]{2}[0-9])[0-9][ ]?[A-Z0-9]{4}(?:[ ]?[A-Z0-9]{1,4}){2,7}")
_VIN = re.compile(r"(?<![A-Za-z0-9])[A-HJ-NPR-Z0-9]{17}(?![A-Za-z0-9])")

# The published forms of access keys. One of the needles stands in every one of them.
_NEEDLES = (
    "AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox",
    "sk-", "k_live_", "k_test_", "AIza", "ya29.", "SG.", "hf_", "npm_", "pypi-", "eyJ", "LTAI",
    "AKID", "dckr_pat_",
)  # fmt: skip
_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}"
    r"|glpat-[A-Za-z0-9_-]{20,64}|xox[abeoprs]-[A-Za-z0-9-]{10,255}"
    r"|sk-(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{20,255}|[rs]k_(?:live|test)_[A-Za-z0-9]{16,255}"
    r"|AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,255}"
    r"|SG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16,128}|hf_[A-Za-z0-9]{30,64}"
    r"|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{50,255}|dckr_pat_[A-Za-z0-9_-]{20,64}"
    r"|LTAI[A-Za-z0-9]{12,26}|AKID[A-Za-z0-9]{13,40}"
    r"|eyJ[A-Za-z0-9_-]{8,4096}\.eyJ[A-Za-z0-9_-]{4,8192}\.[A-Za-z0-9_-]{8,2048}"
    r")(?![A-Za-z0-9])"
)
_BLOCK = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_BLOCK_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_BLOCK_BODY = re.compile(r"[A-Za-z0-9+/=\s:,-]*")

_SAID = ("passw", "passphrase", "pwd", "secret", "token", "api", "密码", "密碼", "口令")
_ASSIGNED = re.compile(
    r"(?:passwords?|passwd|passphrase|pwd|secret(?:[_-]?(?:access[_-]?)?key)?|token|api[_-]?key"
    r"|密码|密碼|口令)[\"']?[ \t]{0,2}(?:=>|=|:|：|是|为)[ \t]{0,2}"
    r"(?:\"([^\"\[\]\n]{6,256})\"|'([^'\[\]\n]{6,256})'"
    r"|((?:[^\s\"'<>\[\]&,;，。；、]|&(?!amp;|[A-Za-z_]+=)){6,256}))",
    re.IGNORECASE,
)
_CALL = re.compile(r"[A-Za-z_][\w.]*(?:[({]|\.[A-Za-z_]+\.)")
_IN_URL = re.compile(r"://([A-Za-z0-9._%+~-]{1,64}:[^\s/@:\[\]]{3,128})@(?=[A-Za-z0-9])")


def spans(text: str, kinds: frozenset[str], *, private: bool) -> Iterator[Span]:
    """What is found, not ordered; spans of different kinds may overlap.

    Args:
        text: full-width forms already made plain, character for character.
        kinds: some of ``KINDS``.
        private: find private and reserved IP addresses too.
    """
    if "secret" in kinds:
        yield from _secrets(text)
    if "email" in kinds and "@" in text:
        yield from _emails(text)
    if "ip" in kinds:
        yield from _addresses(text, private=private)
    if "iban" in kinds:
        yield from _ibans(text)
    if "vin" in kinds:
        found = (m for m in _VIN.finditer(text) if not m[0].isalpha() and not m[0].isdigit())
        yield from ((*m.span(), "vin") for m in found if checks.vin(m[0]))


def _emails(text: str) -> Iterator[Span]:
    """Around every "@": an expression that began with the local part would try every word."""
    at = text.find("@")
    while at >= 0:
        domain = _DOMAIN.match(text, at)
        if domain and domain[2].lower() not in _NOT_DOMAINS:
            local = _LOCAL.search(text, max(0, at - 64), at)
            # A mark before the address, as in "(me@x.org" or "'me@x.org'", is not a part of it.
            start = at - len(local[0].lstrip(".!#$%&'*+/=?^`{|}~-")) if local else at
            if start < at and text[at - 1] != ".":
                yield start, domain.end(), "email"
        at = text.find("@", at + 1)


def _addresses(text: str, *, private: bool) -> Iterator[Span]:
    """IPv6 around two colons with at most four hexadecimal digits between them."""
    done = 0
    for match in _HEX_COLONS.finditer(text):
        if match.start() < done:
            continue
        tail = _HEX_TAIL.search(text, max(done, match.start() - 5), match.start())
        start = tail.start() if tail else match.start()
        while text[start] == ".":  # the stop of the sentence before
            start += 1
        run = _HEX_RUN.match(text, start)
        end = run.end() if run else match.end()
        while text[end - 1] == "." or (text[end - 1] == ":" and text[end - 2] != ":"):
            end -= 1  # the stop or the colon of the sentence
        done = max(end, match.end() - 1)
        found = text[start:end]
        groups = [g for g in found.split(":") if g]
        rough = len(groups) > 2 or (len(groups) == 2 and len(groups[0]) == 4)
        if not rough or not any(c.isdigit() for c in found):
            continue  # C++ names, "::" and ratios
        if _word(text, start - 1) or _word(text, end):
            continue
        if checks.address(found, private=private):
            yield start, end, "ip"


def _word(text: str, at: int) -> bool:
    return 0 <= at < len(text) and text[at].isascii() and (text[at].isalnum() or text[at] == "_")


def _ibans(text: str) -> Iterator[Span]:
    for match in _IBAN.finditer(text):
        start = match.start() - 2
        length = checks.IBAN_LENGTHS.get(text[start : start + 2])
        if length is None or _word(text, start - 1):
            continue
        left, end = length, start
        while left and end < match.end():
            left -= text[end] != " "
            end += 1
        if not left and not _word(text, end) and checks.iban(text[start:end].replace(" ", "")):
            yield start, end, "iban"


def _secrets(text: str) -> Iterator[Span]:
    if "-----BEGIN" in text:
        yield from _blocks(text)
    if any(needle in text for needle in _NEEDLES):
        yield from ((*m.span(), "secret") for m in _KEY.finditer(text))
    if "://" in text and "@" in text:
        yield from ((*m.span(1), "secret") for m in _IN_URL.finditer(text))
    yield from _assignments(text)


def _assignments(text: str) -> Iterator[Span]:
    """Passwords and the like: the words are looked for as plain text, which is the fastest."""
    lower = text.lower()
    if len(lower) != len(text):  # a few capitals have two characters in lower case
        lower = "".join(c.lower() if c.isascii() else c for c in text)
    for word in _SAID:
        at = lower.find(word)
        while at >= 0:
            match = _ASSIGNED.match(text, at)
            if match and _random(match):
                yield (*match.span(match.lastindex or 0), "secret")
            at = lower.find(word, at + 1)


def _blocks(text: str) -> Iterator[Span]:
    """Private keys in PEM and PGP armour; one that was cut off ends where base64 does."""
    closed = True
    done = 0
    for begin in _BLOCK.finditer(text):
        if begin.start() < done:
            continue
        end = _BLOCK_END.search(text, begin.end()) if closed else None
        closed = end is not None  # none after this one: none after the next
        body = _BLOCK_BODY.match(text, begin.end())
        done = end.end() if end else body.end() if body else begin.end()
        yield begin.start(), done, "secret"


def _random(match: re.Match[str]) -> bool:
    """Whether an assigned value looks drawn or chosen, not like a word, a name or a call.

    At least two kinds of character, one of them a digit or a sign, and 2.5 bits a character
    (Shannon's entropy of its own characters).
    """
    value = match[match.lastindex or 0]
    if " " in value or value[0] in "$({%" or _CALL.match(value) or "://" in value:
        return False
    kinds = [any(map(test, value)) for test in (str.islower, str.isupper, str.isdigit)]
    signs = any(not c.isalnum() and c not in "._-/" for c in value)
    if not value.isascii() or not (kinds[2] or signs) or sum(kinds) + signs < 2:
        return False
    shares = [n / len(value) for n in Counter(value).values()]
    return -sum(p * math.log2(p) for p in shares) >= 2.5
