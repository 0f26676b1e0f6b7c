"""Check digits and number ranges: what tells an identifier from any other run of digits."""

from __future__ import annotations

import datetime
import ipaddress

_LETTERS = {chr(ord("A") + i): i + 10 for i in range(26)}

# Total length by country, from the SWIFT IBAN registry (ISO 13616).
_IBAN_LENGTHS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 "
    "EE20 EG29 ES24 FI18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 "
    "IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 "
    "NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SE24 SI19 SK24 SM27 ST25 SV28 TL23 TN24 "
    "TR26 UA29 VA22 VG24 XK20"
)
IBAN_LENGTHS = {entry[:2]: int(entry[2:]) for entry in _IBAN_LENGTHS.split()}

# Provinces of the first two digits of a resident id (GB/T 2260).
_PROVINCES = frozenset(
    (*range(11, 16), *range(21, 24), *range(31, 38), *range(41, 47), *range(50, 55))
)
_PROVINCES |= {*range(61, 66), 71, 81, 82, 83, 91}
_VIN_VALUES = dict(zip("ABCDEFGHJKLMNPRSTUVWXYZ", "12345678123457923456789", strict=True))
_VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)

# Country calling codes of two digits (ITU-T E.164); 1 and 7 stand alone, and the codes of three
# digits begin with the rest of the allotted pairs.
_CALLING = frozenset((20, 27, *range(30, 35), 36, *range(39, 42), *range(43, 50), *range(51, 59)))
_CALLING |= {*range(60, 67), 81, 82, 84, 86, *range(90, 96), 98}
_CALLING |= {21, 22, 23, 24, 25, 26, 29, 35, 37, 38, 42, 50, 59, 67, 68, 69, 80, 85, 87, 88}
_CALLING |= {96, 97, 99}


def luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of Luhn's formula (ISO/IEC 7812-1).

    From the right, every second digit is doubled and its digits added; the sum is 0 mod 10.
    """
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def card_lengths(digits: str) -> tuple[int, ...]:
    """The lengths of card numbers of the issuer of these first digits, long ones first; or none."""
    two, three, four = int(digits[:2]), int(digits[:3]), int(digits[:4])
    if digits[0] == "4":
        return (19, 16, 13)  # Visa
    if 51 <= two <= 55 or 2221 <= four <= 2720:
        return (16,)  # Mastercard
    if two in (34, 37):
        return (15,)  # American Express
    if two == 62:
        return (19, 18, 17, 16)  # UnionPay
    if four == 6011 or two == 65 or 644 <= three <= 649:
        return (19, 16)  # Discover
    if 3528 <= four <= 3589:
        return (16,)  # JCB
    if 300 <= three <= 305 or two in (36, 38, 39):
        return (14,)  # Diners Club
    return ()


def resident_id(digits: str) -> bool:
    """Whether 18 characters are a resident id of China (GB 11643): place, birth date, check.

    The check character is (12 - sum of digit_i * 2^(17-i)) mod 11, with X for 10.
    """
    if int(digits[:2]) not in _PROVINCES:
        return False
    try:
        born = datetime.date(int(digits[6:10]), int(digits[10:12]), int(digits[12:14]))
    except ValueError:
        return False
    if not 1880 <= born.year <= 2100:
        return False
    total = sum(int(d) * pow(2, 17 - i, 11) for i, d in enumerate(digits[:17]))
    return "10X98765432"[total % 11] == digits[17].upper()


def social_security(area: int, group: int, serial: int) -> bool:
    """Whether a US Social Security number can be issued: no part of zeros, no 666, no 9xx."""
    return 0 < area < 900 and area != 666 and group > 0 and serial > 0


def iban(characters: str) -> bool:
    """Whether upper-case characters without blanks are an IBAN: length by country, 1 mod 97."""
    if IBAN_LENGTHS.get(characters[:2]) != len(characters):
        return False
    moved = characters[4:] + characters[:4]
    number = "".join(str(_LETTERS.get(c, c)) for c in moved)
    return int(number) % 97 == 1


def vin(characters: str) -> bool:
    """Whether 17 characters are a vehicle identification number with the check digit (ISO 3779)."""
    values = [int(c) if c.isdigit() else int(_VIN_VALUES[c]) for c in characters]
    total = sum(v * w for v, w in zip(values, _VIN_WEIGHTS, strict=True))
    return "0123456789X"[total % 11] == characters[8]


def book_number(digits: str) -> bool:
    """Whether 13 digits are an ISBN: 978 or 979 and weights 1, 3 that sum to 0 mod 10."""
    if len(digits) != 13 or digits[:3] not in ("978", "979"):
        return False
    return sum(int(d) * (3 if i % 2 else 1) for i, d in enumerate(digits)) % 10 == 0


def calling_code(digits: str) -> bool:
    """Whether the digits after a "+" begin with a country's calling code."""
    return digits[:1] in ("1", "7") or int(digits[:2]) in _CALLING


def address(characters: str, *, private: bool) -> bool:
    """Whether the characters are an IP address that is public, or with ``private`` any."""
    try:
        found = ipaddress.ip_address(characters)
    except ValueError:
        return False
    return private or found.is_global
