"""What is written in digits: cards, resident ids, Social Security numbers, IPv4, telephones.

All of it is looked for only inside clusters: five digits or more with little between them. A
text without a cluster costs one pass of a compiled expression that begins with a digit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from modelwright.data.pii import checks

Span = tuple[int, int, str]  # (start, end, kind) in characters
Check = Callable[[re.Match[str]], int | None]  # a match -> where it ends, None if it is none

KINDS = ("card", "cn_id", "ssn", "ip", "phone")  # the stricter first: it takes the digits
CLUSTER = re.compile(r"[0-9](?:[ ()./\-]{0,3}[0-9]){4,}")
NEAR = 28  # characters before a number in which a word says what it is

_CARD = re.compile(r"(?<![0-9A-Za-z])(?<![0-9]\.)[2-6](?:[ -]?[0-9]){12,18}(?![0-9A-Za-z])")
_CN_ID = re.compile(
    r"(?<![0-9A-Za-z])[1-9][0-9]{5}[ -]?[12][0-9]{7}[ -]?[0-9]{3}[0-9Xx](?![0-9A-Za-z])"
)
_SSN = re.compile(r"(?<![0-9A-Za-z-])([0-9]{3})([ -]?)([0-9]{2})\2([0-9]{4})(?![0-9A-Za-z-])")
_SSN_WORDS = re.compile(r"\bSSN\b|social.security", re.IGNORECASE)
_IPV4 = re.compile(
    r"(?<![0-9A-Za-z])(?<![0-9]\.)(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}"
    r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?![0-9A-Za-z]|\.[0-9])"
)
_VERSION_WORDS = re.compile(
    r"(?:\bv|version|release|firmware|build|driver|section|chapter|clause|版本|章节)[\s:./]*$",
    re.IGNORECASE,
)

_INTERNATIONAL = re.compile(
    r"(?<![0-9A-Za-z])\+[ ]?[0-9](?:[ ()./-]{0,3}[0-9]){7,14}(?![0-9A-Za-z])"
)
_AMERICAN = re.compile(
    r"(?<![0-9A-Za-z-])(?<![0-9]\.)(?:1[-. ])?(?:\([2-9][0-9]{2}\)[ -]?|[2-9][0-9]{2}([-.]))"
    r"[2-9][0-9]{2}(?:\1|[-. ])[0-9]{4}(?![0-9A-Za-z]|[-.][0-9])"
)
_CN_MOBILE = re.compile(
    r"(?<![0-9A-Za-z])(?<![0-9]\.)(?:86[ -]?)?1[3-9][0-9]([ -]?)[0-9]{4}\1[0-9]{4}"
    r"(?![0-9A-Za-z]|[.,][0-9])"
)
_CN_LANDLINE = re.compile(
    r"(?<![0-9A-Za-z-])(?<![0-9]\.)(?:\(0[1-9][0-9]{1,2}\)[ -]?|0(?:10|2[0-9]|[3-9][0-9]{2})[- ])"
    r"[2-8][0-9]{6,7}(?![0-9A-Za-z]|[.,][0-9])"
    r"|(?<![0-9A-Za-z-])(?<![0-9]\.)(?:400|800)-(?:[0-9]{3}-?[0-9]{4}|[0-9]{4}-?[0-9]{3})(?![0-9A-Za-z-])"
)
_NAMED = re.compile(
    r"(?<![0-9A-Za-z])\(?[0-9](?:[ ()./-]{0,2}[0-9]){6,14}(?![0-9A-Za-z]|[.,][0-9])"
)
_PHONE_WORDS = re.compile(
    r"(?:(?<![./])\b(?:tel|phone|telephone|mobile|cell|fax|whatsapp)\b|\b(?:call|ring|dial)(?:\s+\w+)?"
    r"|电话|電話|手机|手機|致电|座机|热线|熱線|传真|傳真|拨打|微信)"
    r"(?:\s+(?:number|no|us|me|is|at|on))*\W{0,3}(?:是|为|号码|號碼|号)?\W{0,3}$",
    re.IGNORECASE,
)
_OTHER_WORDS = re.compile(
    r"(?:isbn|issn|doi|oclc|lccn|pmid|arxiv|rfc|patent|书号|刊号|统一书号)[^\n]{0,12}$",
    re.IGNORECASE,
)
_DATE = re.compile(
    r"(?:1[0-9]|20)[0-9]{2}[-/. ](?:0?[1-9]|1[0-2])[-/. ](?:[0-2]?[0-9]|3[01])(?![0-9])"
    r"|(?:[0-2]?[0-9]|3[01])[-/. ](?:[0-2]?[0-9]|3[01])[-/. ](?:1[0-9]|20)[0-9]{2}(?![0-9])"
    r"|(?:1[0-9]|20)[0-9]{2} ?- ?(?:1[0-9]|20)[0-9]{2}(?![0-9])"
)
_MONEY = re.compile(r"\s?(?:元|万|亿|美元|%|USD|EUR|dollars|euros)")


def spans(text: str, kinds: frozenset[str], *, private: bool) -> Iterator[Span]:
    """What is found in the clusters of ``text``, not ordered; spans do not overlap.

    Args:
        text: full-width forms already made plain, character for character.
        kinds: some of ``KINDS``.
        private: find private and reserved IP addresses too.
    """
    scans = [(kind, pattern, check) for kind, pattern, check in _scans(private) if kind in kinds]
    for cluster in CLUSTER.finditer(text):
        start, end = cluster.span()
        while start and text[start - 1] in "+( ":  # what may stand before the first digit
            start -= 1
        taken: list[tuple[int, int]] = []
        for kind, pattern, check in scans:
            for span in _scan(pattern, check, text, start, min(len(text), end + 2)):
                if all(span[1] <= t[0] or span[0] >= t[1] for t in taken):
                    taken.append(span)
                    yield (*span, kind)


def _scan(
    pattern: re.Pattern[str], check: Check, text: str, start: int, end: int
) -> Iterator[tuple[int, int]]:
    """Matches that pass the check; where one does not, the search goes on at its next character."""
    while match := pattern.search(text, start, end):
        stop = check(match)
        if stop is None:
            start = match.start() + 1
        else:
            yield match.start(), stop
            start = stop


def _scans(private: bool) -> list[tuple[str, re.Pattern[str], Check]]:
    def ip(match: re.Match[str]) -> int | None:
        return _ip(match, private=private)

    return [
        ("card", _CARD, _card),
        ("cn_id", _CN_ID, _cn_id),
        ("ssn", _SSN, _ssn),
        ("ip", _IPV4, ip),
        ("phone", _INTERNATIONAL, _international),
        ("phone", _AMERICAN, _national),
        ("phone", _CN_MOBILE, _cn_mobile),
        ("phone", _CN_LANDLINE, _national),
        ("phone", _NAMED, _named),
    ]


def _digits(match: re.Match[str]) -> str:
    return re.sub(r"[^0-9]", "", match[0])


def _before(match: re.Match[str]) -> str:
    return match.string[max(0, match.start() - NEAR) : match.start()]


def _card(match: re.Match[str]) -> int | None:
    """Where the card number ends: what follows it, such as a date, may have joined the match."""
    digits = _digits(match)
    for length in checks.card_lengths(digits):
        if length > len(digits) or not checks.luhn(digits[:length]):
            continue
        left, end = length, match.start()
        while left:
            left -= match.string[end].isdigit()
            end += 1
        if not match.string[end : end + 1].isdigit() and len(set(digits[:length])) > 1:
            return end
    return None


def _cn_id(match: re.Match[str]) -> int | None:
    plain = match[0].replace(" ", "").replace("-", "")
    return match.end() if checks.resident_id(plain) else None


def _ssn(match: re.Match[str]) -> int | None:
    area, joint, group, serial = match.groups()
    if joint != "-" and not _SSN_WORDS.search(_before(match)):
        return None
    return match.end() if checks.social_security(int(area), int(group), int(serial)) else None


def _ip(match: re.Match[str], *, private: bool) -> int | None:
    if len(match[0]) < 8 or _VERSION_WORDS.search(_before(match)):  # 1.2.3.4 numbers a section
        return None
    return match.end() if checks.address(match[0], private=private) else None


def _not_a_phone(match: re.Match[str]) -> bool:
    before = _before(match)
    return bool(
        _OTHER_WORDS.search(before)
        or _DATE.match(match[0].strip("( "))
        or _MONEY.match(match.string, match.end())
        or before.rstrip().endswith(("$", "€", "£", "¥", "￥"))
        or checks.book_number(_digits(match))
    )


def _international(match: re.Match[str]) -> int | None:
    digits = _digits(match)
    plausible = checks.calling_code(digits) and not digits.endswith("000000")
    return match.end() if plausible and not _OTHER_WORDS.search(_before(match)) else None


def _national(match: re.Match[str]) -> int | None:
    return None if _not_a_phone(match) else match.end()


def _cn_mobile(match: re.Match[str]) -> int | None:
    before = match.string[max(0, match.start() - 2) : match.start()]
    in_a_name = before[-1:] in ("/", "_", "-") or (before[-1:] == "." and before[:1].isalnum())
    if match[0].endswith("00000") or (in_a_name and match[0].isdigit()) or _not_a_phone(match):
        return None  # 15000000000 is an amount, 10.1002/andp.19053220607 an article
    return match.end()


def _named(match: re.Match[str]) -> int | None:
    """A number of any national form: only where a word before it says that it is a telephone."""
    if not _PHONE_WORDS.search(_before(match)) or _not_a_phone(match):
        return None
    return match.end()
