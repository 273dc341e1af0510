"""Personal information: what can be told by its form, and by a checksum where it has one.

As in FineWeb (arXiv:2406.17557, section 3.1) and Dolma (arXiv:2402.00159), e-mail and public IP addresses and telephone
numbers; besides them payment cards. A form can deceive both ways: a version number of four parts may be an address
(`1.2.3.4`), and a national telephone number is recognised only where it is North American, or announced (`Tel.`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection
from ipaddress import IPv6Address, ip_address, ip_network

from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_api.v1alpha1.filters import PersonalInformation

PLACEHOLDERS = {"email": "<EMAIL>", "card": "<CARD_NUMBER>", "ip": "<IP_ADDRESS>", "phone": "<PHONE_NUMBER>"}
"""What stands in the text instead, by kind; a card's digits are looked for before a telephone's."""

_EMAIL = re.compile(
    r"""(?<![\w.%+-])[\w%+-][\w.%+-]{0,63}        # at most 64 characters (RFC 5321, section 4.5.3.1)
    @(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+  # labels of at most 63 (RFC 1035, section 2.3.4)
    [a-z]{2,24}(?![\w-]|\.[a-z0-9])""",
    re.VERBOSE | re.ASCII | re.IGNORECASE,
)
_CARD = re.compile(r"(?<![\w.+-])[2-6](?:[ -]?[0-9]){11,18}(?![\w-]|\.[0-9])", re.ASCII)
_IP = re.compile(
    r"(?<![\w.:])(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?!\w|\.[0-9])|(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}(?![\w:]))",
    re.ASCII | re.IGNORECASE,
)
_PHONE = re.compile(
    r"""(?:(?<![\w.+-])(?:
        \+[1-9][0-9\ ()./-]{6,20}[0-9]                                      # +49 (30) 901-820
      | (?:\+?1[\ .-])?(?:\([2-9][0-9]{2}\)\ ?|[2-9][0-9]{2}[.-])[2-9][0-9]{2}[.-][0-9]{4}  # (415) 555-2671
      )
      | (?P<before>\b(?:telephone|telefon|phone|mobile|tel|fax)[.:]{0,2}\ ?)[0-9(][0-9\ ()./-]{5,20}[0-9]
    )(?![\w-]|\.[0-9])""",
    re.VERBOSE | re.ASCII | re.IGNORECASE,
)

_ISSUED = re.compile(
    r"""4(?:[0-9]{12}|[0-9]{15}|[0-9]{18})                                     # Visa
    | (?:5[1-5][0-9]{2}|222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}  # Mastercard
    | 3[47][0-9]{13}                                                            # American Express
    | 3(?:0[0-5]|[68][0-9])[0-9]{11}                                            # Diners Club
    | (?:6011|65[0-9]{2}|64[4-9][0-9])[0-9]{12}                                 # Discover
    | 35(?:2[89]|[3-8][0-9])[0-9]{12}                                           # JCB
    | 62[0-9]{14,17}                                                            # UnionPay""",
    re.VERBOSE,
)
"""Numbers by their issuers' first digits and lengths (ISO/IEC 7812)."""

_GLOBAL_UNICAST = ip_network("2000::/3")
_PHONE_DIGITS = (7, 15)
"""Fewest of a subscriber's number worth the name, and most (ITU-T E.164, section 6)."""


def settings_of(spec: DatasetBuildSpec) -> PersonalInformation | None:
    """What the spec asks about personal information, if it asks anything."""
    return next((each.pii for each in spec.filters if each.pii is not None), None)


def kinds_of(spec: DatasetBuildSpec) -> Collection[str]:
    """The kinds of personal information that the spec does not want."""
    settings = settings_of(spec)
    return settings.kinds if settings is not None else ()


def redact(text: str, kinds: Collection[str]) -> tuple[str, Counter[str]]:
    """The text with placeholders for what was found, and how much that is by kind."""
    found: Counter[str] = Counter()
    for kind, (worth_looking, pattern, is_one) in _KINDS.items():
        if kind in kinds and worth_looking(text):
            text = pattern.sub(_replacing(kind, is_one, found), text)
    return text, found


def _replacing(kind: str, is_one: Callable[[str], bool], found: Counter[str]) -> Callable[[re.Match[str]], str]:
    def replace(match: re.Match[str]) -> str:
        before = match.groupdict().get("before") or ""
        if not is_one(match[0].removeprefix(before)):
            return match[0]
        found[kind] += 1
        return before + PLACEHOLDERS[kind]

    return replace


def _is_card(text: str) -> bool:
    digits = _digits(text)
    return _ISSUED.fullmatch(digits) is not None and luhn(digits)


def luhn(digits: str) -> bool:
    """Whether the last digit is the checksum of the others (Luhn 1960, US patent 2,950,048)."""
    values = [int(digit) for digit in reversed(digits)]
    return (sum(values[::2]) + sum(sum(divmod(2 * value, 10)) for value in values[1::2])) % 10 == 0


def _is_public_address(text: str) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return address.is_global and (not isinstance(address, IPv6Address) or address in _GLOBAL_UNICAST)


def _is_phone(text: str) -> bool:
    fewest, most = _PHONE_DIGITS
    return fewest <= len(_digits(text)) <= most


def _digits(text: str) -> str:
    return "".join(character for character in text if character.isdigit())


def _has_digits(text: str) -> bool:
    return _SOME_DIGITS.search(text) is not None


_SOME_DIGITS = re.compile(r"[0-9][0-9.:)/ -]{0,2}[0-9]")
_KINDS: dict[str, tuple[Callable[[str], bool], re.Pattern[str], Callable[[str], bool]]] = {
    "email": (lambda text: "@" in text, _EMAIL, lambda _: True),
    "card": (_has_digits, _CARD, _is_card),
    "ip": (lambda text: ":" in text or _has_digits(text), _IP, _is_public_address),
    "phone": (_has_digits, _PHONE, _is_phone),
}
"""For each kind whether a text can hold it, the form, and whether something of that form is one."""
