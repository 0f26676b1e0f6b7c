"""Personal data that nobody has, and what only looks like it, to be planted in real text.

Check digits are computed here in other ways than the finder checks them, so that a mistake there
is not repeated here.
"""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Callable

Make = Callable[[random.Random], tuple[str, str]]  # -> (words before it, the value)

GIVEN = ("anna", "john", "mei", "li.wei", "o.brien", "zhang_san", "k-fischer", "maria", "x1a0")
DOMAINS = ("gmail.com", "qq.com", "163.com", "mail.example.co.uk", "uni-jena.de", "corp.io")
ENGLISH_CALLS = ("call me at ", "Phone: ", "Tel. ", "reach us on ", "", "", "my number is ")
CHINESE_CALLS = ("电话：", "手机", "联系电话", "请拨打", "", "", "我的号码是")


def _digits(draw: random.Random, count: int, first: str = string.digits) -> str:
    return draw.choice(first) + "".join(draw.choices(string.digits, k=count - 1))


def email(draw: random.Random) -> tuple[str, str]:
    """Addresses of usual forms, some with tags, capitals or digits."""
    local = draw.choice(GIVEN) + draw.choice(("", "99", "+news", ".work", "_" + _digits(draw, 3)))
    value = f"{local}{_digits(draw, 4)}@{draw.choice(DOMAINS)}"
    return draw.choice(("mail ", "邮箱：", "", "<", "(")), draw.choice((str, str.upper))(value)


def phone(draw: random.Random) -> tuple[str, str]:
    """International, North American, Chinese mobile and landline numbers in turn of chance."""
    return draw.choice((_international, _american, _chinese_mobile, _chinese_landline))(draw)


def _international(draw: random.Random) -> tuple[str, str]:
    forms: tuple[str, ...] = (
        "+44 20 7946 {4}",
        "+49 30 {3} {5}",
        "+33 6 12 {2} {2} {2}",
        "+1-212-555-{4}",
    )
    forms += (
        "+86 138{4}{4}",
        "+861{2}{4}{4}",
        "+34 612 {3} {3}",
        "+81-3-{4}-{4}",
        "+7 (495) 7{2}-{2}-{2}",
    )
    return draw.choice(ENGLISH_CALLS), _filled(
        draw, draw.choice(forms).replace("+861{2}", "+8613{1}")
    )


def _american(draw: random.Random) -> tuple[str, str]:
    area, exchange = _digits(draw, 3, "23456789"), _digits(draw, 3, "23456789")
    form = draw.choice(
        ("({0}) {1}-{2}", "{0}-{1}-{2}", "{0}.{1}.{2}", "1-{0}-{1}-{2}", "({0}){1}-{2}")
    )
    return draw.choice(ENGLISH_CALLS), form.format(area, exchange, _digits(draw, 4))


def _chinese_mobile(draw: random.Random) -> tuple[str, str]:
    number = "1" + draw.choice("3456789") + _digits(draw, 8) + draw.choice("123456789")
    form = draw.choice(("{0}{1}{2}", "{0} {1} {2}", "{0}-{1}-{2}"))
    value = form.format(number[:3], number[3:7], number[7:])
    if draw.random() < 0.1:
        value = "".join(chr(ord(c) + 0xFEE0) if c.isdigit() else c for c in value)
    return draw.choice(CHINESE_CALLS), value


def _chinese_landline(draw: random.Random) -> tuple[str, str]:
    area, length = draw.choice((("010", 8), ("021", 8), ("0755", 8), ("0571", 8), ("0311", 7)))
    number = _digits(draw, length, "2345678")
    form = draw.choice(("{0}-{1}", "({0}){1}", "（{0}）{1}", "{0} {1}"))
    return draw.choice(CHINESE_CALLS), form.format(area, number)


def _filled(draw: random.Random, form: str) -> str:
    for count in "12345":
        while f"{{{count}}}" in form:
            form = form.replace(f"{{{count}}}", _digits(draw, int(count), "123456789"), 1)
    return form


def ip(draw: random.Random) -> tuple[str, str]:
    """Public addresses of both versions; the latter whole or shortened."""
    before = draw.choice(("from ", "IP: ", "", "host ", "地址"))
    if draw.random() < 0.5:
        first = draw.choice((23, 45, 52, 81, 93, 114, 123, 185, 203))
        rest = (draw.randint(1, 250), draw.randint(16, 254), draw.randint(16, 254))
        return before, ".".join(map(str, (104 if first == 203 else first, *rest)))
    groups = [f"{draw.randint(1, 0xFFFF):x}" for _ in range(6)]
    if draw.random() < 0.5:
        return before, ":".join(("2a00", "1450", *groups))
    return before, f"2606:4700:{groups[0]}::{groups[1]}"


def card(draw: random.Random) -> tuple[str, str]:
    """Numbers of six issuers with Luhn's digit, plain or in groups."""
    first, length = draw.choice(
        (("4", 16), ("53", 16), ("2300", 16), ("37", 15), ("62", 19), ("6011", 16))
    )
    body = first + _digits(draw, length - 1 - len(first))
    number = next(n for d in string.digits if _doubles(n := body + d) % 10 == 0)
    if draw.random() < 0.5:
        return draw.choice(("card ", "卡号", "")), number
    joint = draw.choice((" ", "-"))
    cuts = (4, 10) if length == 15 else tuple(range(4, length, 4))
    ends = (*cuts, length)
    groups = [number[a:b] for a, b in zip((0, *cuts), ends, strict=True)]
    return draw.choice(("card ", "卡号：", "")), joint.join(groups)


def _doubles(number: str) -> int:
    table = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
    odd, even = number[-1::-2], number[-2::-2]
    return sum(map(int, odd)) + sum(table[int(c)] for c in even)


def iban(draw: random.Random) -> tuple[str, str]:
    """Accounts of five countries, plain or in groups of four."""
    country, bank, count = draw.choice(
        (("DE", "", 18), ("GB", "NWBK", 14), ("FR", "", 23), ("NL", "ABNA", 10), ("ES", "", 20))
    )
    account = bank + _digits(draw, count)
    spelled = "".join(str(int(c, 36)) for c in f"{account}{country}00")
    value = f"{country}{98 - int(spelled) % 97:02d}{account}"
    if draw.random() < 0.5:
        value = " ".join(value[i : i + 4] for i in range(0, len(value), 4))
    return draw.choice(("IBAN ", "account ", "")), value


def ssn(draw: random.Random) -> tuple[str, str]:
    """With dashes anywhere, with blanks or nothing where a word says what it is."""
    parts = (
        f"{draw.randint(1, 665):03d}",
        f"{draw.randint(1, 99):02d}",
        f"{draw.randint(1, 9999):04d}",
    )
    if draw.random() < 0.7:
        return draw.choice(("SSN ", "no. ", "")), "-".join(parts)
    return draw.choice(("SSN: ", "social security number ")), draw.choice((" ", "")).join(parts)


def cn_id(draw: random.Random) -> tuple[str, str]:
    """Resident ids with the check character of GB 11643."""
    place = draw.choice(("110105", "310101", "440305", "510107", "610113"))
    born = f"{draw.randint(1940, 2015)}{draw.randint(1, 12):02d}{draw.randint(1, 28):02d}"
    body = place + born + _digits(draw, 3)
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    rest = sum(int(d) * w for d, w in zip(body, weights, strict=True)) % 11
    return draw.choice(("身份证号", "身份证：", "", "ID ")), body + "10X98765432"[rest]


def secret(draw: random.Random) -> tuple[str, str]:
    """Keys of published forms, tokens, key blocks, passwords that are assigned."""
    word, upper = string.ascii_letters + string.digits, string.ascii_uppercase + string.digits

    def some(count: int, alphabet: str = word) -> str:
        return "".join(draw.choices(alphabet, k=count))

    kind = draw.randrange(8)
    if kind < 5:
        forms: tuple[str, ...] = (
            "AKIA" + some(16, upper),
            "ghp_" + some(36),
            "sk-" + some(20) + "T3" + some(24),
        )
        forms += ("AIza" + some(35), "xoxb-" + _digits(draw, 12) + "-" + some(24))
        return draw.choice(("key ", "", "密钥 ")), forms[kind]
    if kind == 5:
        parts = ({"alg": "HS256", "typ": "JWT"}, {"sub": some(12), "iat": draw.randint(1, 10**9)})
        codes = [
            base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts
        ]
        return "Bearer ", ".".join((*codes, some(43)))
    if kind == 6:
        lines = "\n".join(some(64) for _ in range(6))
        return "\n", f"-----BEGIN RSA PRIVATE KEY-----\n{lines}\n-----END RSA PRIVATE KEY-----"
    value = some(5) + draw.choice("!#@%&$*") + some(5) + _digits(draw, 2)
    return draw.choice(("password=", "passwd: ", "api_key = ", "密码：", 'secret="')), value


KINDS: dict[str, Make] = {
    "email": email,
    "phone": phone,
    "ip": ip,
    "card": card,
    "iban": iban,
    "ssn": ssn,
    "cn_id": cn_id,
    "secret": secret,
}


def decoy(draw: random.Random) -> str:
    """What is none: book numbers, dates, prices, versions, ranges, hashes, clock times, code."""
    year, month, day = draw.randint(1700, 2030), draw.randint(1, 12), draw.randint(1, 28)
    number = _digits(draw, 12, "123456789")
    private = f"192.168.{draw.randint(0, 255)}.{draw.randint(1, 254)}"
    return draw.choice(
        (
            f"ISBN 978-{number[0]}-{number[1:5]}-{number[5:9]}-{number[9]}",
            f"{year}-{month:02d}-{day:02d}",
            f"{day:02d}/{month:02d}/{year} {draw.randint(0, 23):02d}:{draw.randint(0, 59):02d}:30",
            f"{year}-{year + draw.randint(1, 90)}",
            f"${number[:3]},{number[3:6]},{number[6:9]}.{number[9:11]}",
            f"{number[:9]}00元",
            f"version {number[0]}.{number[1:3]}.{number[3:5]}.{number[5:7]}",
            f"Chrome/{number[:2]}.0.{number[2:6]}.{number[6:9]}",
            f"pp. {number[:3]}-{number[3:6]}, {number[6:9]}",
            f"{draw.getrandbits(160):040x}",
            f"{draw.randint(1, 20)}:{draw.randint(10, 59)}:{draw.randint(10, 59)}",
            f"{number[:2]}.{number[2:8]}, -{number[8:10]}.{number[10:12]}4821",
            f"3.14159{number[:8]}",
            f"order {number[:10]}",
            f"16{number[:8]}",
            f"std::vector<int>::{draw.choice(GIVEN)}",
            private,
            "password = getpass.getpass()",
            "the secret: nobody knew it",
            "icon@2x.png",
            f"RFC {number[:4]}, section 4.{number[4]}.2.1",
            f"{number[:4]} {number[4:8]}",
            f"GB{number[:6]}",
            f"#{draw.getrandbits(24):06x}",
            f"({year}) {number[:3]}, {number[3:6]}",
        )
    )
