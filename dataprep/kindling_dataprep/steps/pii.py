"""Personal information: what can be told by its form, and by a checksum where it has one.

As in FineWeb (arXiv:2406.17557, section 3.1) and Dolma (arXiv:2402.00159), e-mail and public IP addresses and telephone
numbers; besides them payment cards. A form can deceive both ways: four numbers are taken for an address unless they are
announced as a version or a clause (`v1.2.3.4`), and a national telephone number is recognised only where it is North
American or Russian, or announced (`Tel.`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection
from importlib.resources import files
from ipaddress import IPv6Address, ip_address, ip_network

from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_api.v1alpha1.filters import PersonalInformation

TOP_LEVEL = frozenset(files("kindling_dataprep.steps").joinpath("lists", "top-level-domains.txt").read_text().split())
"""The domains of the root zone (iana.org/domains/root/db, June 2026): what ends otherwise is a file or an attribute."""

PLACEHOLDERS = {"email": "<EMAIL>", "card": "<CARD_NUMBER>", "ip": "<IP_ADDRESS>", "phone": "<PHONE_NUMBER>"}
"""What stands in the text instead, by kind; a card's digits are looked for before a telephone's."""

_LETTERS = (
    r"0-9A-Za-z_\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02af\u0300-\u037d\u037f-\u0556\u0561-\u0587\u05d0-\u05ea\u0620-\u0669"
    r"\u066e-\u06d3\u0900-\u0963\u0966-\u0dff\u10a0-\u10ff\u1e00-\u1fff"
)
"""Of scripts that put spaces between words, in which addresses may be written, too (RFC 6531): in others a word that
touches an address is not part of it."""
_LABEL = rf"[{_LETTERS}](?:[{_LETTERS}-]{{0,61}}[{_LETTERS}])?"
_QUAD = r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}"

_EMAIL = re.compile(
    rf"""(?P<other>                                # looks alike, and stays
        \bgit@[\w.-]+:                             # git@github.com:owner/name.git
      | @[\w.-]+/[\w.-]+@[\w.^~-]+                 # @types/node@20.1.0
    )
    | (?<![{_LETTERS}%+-])
    (?=[^@\s]{{1,64}}@)                            # RFC 5321, section 4.5.3.1
    [{_LETTERS}%+-]++(?:(?:\.{{1,2}}|')[{_LETTERS}%+-]++)*+\.?
    @(?:
        (?:{_LABEL}\.)+                            # labels of at most 63 (RFC 1035, section 2.3.4)
        (?P<top>xn--[a-z0-9-]{{2,59}}|(?:(?![0-9_])[{_LETTERS}]){{2,24}})(?![{_LETTERS}-]|\.[{_LETTERS}])
      | (?P<open>\[)?(?P<address>{_QUAD})(?(open)\])(?![{_LETTERS}-]|\.[0-9])
    )""",
    re.VERBOSE | re.IGNORECASE,
)
_CARD = re.compile(r"(?<![\w.+-])[2-6](?:[ -]?[0-9]){11,18}(?![\w-]|\.[0-9])", re.ASCII)
_IP = re.compile(
    rf"(?<![\w.:])(?:{_QUAD}(?!\w|\.[0-9])|(?:[0-9a-f]{{0,4}}:){{2,7}}[0-9a-f]{{0,4}}(?![\w:]))",
    re.ASCII | re.IGNORECASE,
)
_BEFORE_A_VERSION = re.compile(
    rf"""(?:
        (?:version|\bver|\bv|release|build|firmware|revision|\brev|section|\bsec|clause|chapter|paragraph|\bpara|article|
           annex|appendix|table|figure|\bfig|\brule|\bitem|\bstep|abschnitt|kapitel|absatz|ziffer|§)s?
        [\s.:="'(]{{0,4}}(?:{_QUAD}(?:,|\ ?-|\ and|\ or|\ to|\ und)?\ ?)*
      | \b(?:bump|upgrad|updat|downgrad)\w*\b[^\n]*\bfrom\ (?:{_QUAD}\ to\ )?
      | [a-z]/                                     # Chrome/49.0.23.1
      | [=~<>!]=|\^|~                              # a requirement of a package
    )$""",
    re.VERBOSE | re.ASCII | re.IGNORECASE,
)
_LOOK_BACK = 120
"""Characters before four numbers that may say that they are a version."""
_PHONE = re.compile(
    r"""(?:(?<![\w.+-])(?:
        \+[1-9][0-9\ ()./-]{6,20}[0-9]                                      # +49 (30) 901-820
      | (?:\+?1[\ .-])?(?:\([2-9][0-9]{2}\)\ ?|[2-9][0-9]{2}[.-])[2-9][0-9]{2}[.-][0-9]{4}  # (415) 555-2671
      | 8[\ -]?\(?[3489][0-9]{2}\)?[\ -]?[0-9]{3}-[0-9]{2}-[0-9]{2}         # 8 (495) 123-45-67
      )
      | (?P<before>
          (?:(?=[tpmhwfтф])\b(?:t[eé]l(?:[eé](?:ph|f)on[eo]?)?|phone|mobile?|handy|whatsapp|fax|тел(?:ефон)?|факс)
          |電話|电话|手机|전화(?:번호)?)
          \ ?[.:：]{0,2}\ ?
        )[0-9(][0-9\ ()./-]{5,20}[0-9]
    )(?![0-9A-Za-z_-]|\.[0-9])""",
    re.VERBOSE | re.IGNORECASE,
)
_DATE = re.compile(r"\+(?:19|20)[0-9]{2}-[01][0-9]-[0-3][0-9]\b")
"""At the beginning of a line of a diff."""

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
_INTERNATIONAL, _NORTH_AMERICAN = 8, 11
"""Digits of a number with the code of its country: at least so many, and of +1 all."""


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


def _replacing(
    kind: str, is_one: Callable[[re.Match[str]], bool], found: Counter[str]
) -> Callable[[re.Match[str]], str]:
    def replace(match: re.Match[str]) -> str:
        groups = match.groupdict()
        if groups.get("other") is not None or not is_one(match):
            return match[0]
        found[kind] += 1
        return (groups.get("before") or "") + PLACEHOLDERS[kind]

    return replace


def _is_email(match: re.Match[str]) -> bool:
    if (address := match["address"]) is not None:
        return _is_public(address)
    return _ascii(match["top"].lower()) in TOP_LEVEL


def _ascii(domain: str) -> str:
    """As a domain of other letters is written in the root zone (RFC 3492)."""
    return domain if domain.isascii() else f"xn--{domain.encode('punycode').decode()}"


def _is_card(match: re.Match[str]) -> bool:
    digits = _digits(match[0])
    return _ISSUED.fullmatch(digits) is not None and luhn(digits)


def luhn(digits: str) -> bool:
    """Whether the last digit is the checksum of the others (Luhn 1960, US patent 2,950,048)."""
    values = [int(digit) for digit in reversed(digits)]
    return (sum(values[::2]) + sum(sum(divmod(2 * value, 10)) for value in values[1::2])) % 10 == 0


def _is_address(match: re.Match[str]) -> bool:
    if "." in match[0] and _BEFORE_A_VERSION.search(match.string[max(0, match.start() - _LOOK_BACK) : match.start()]):
        return False
    return _is_public(match[0])


def _is_public(text: str) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return address.is_global and (not isinstance(address, IPv6Address) or address in _GLOBAL_UNICAST)


def _is_phone(match: re.Match[str]) -> bool:
    number = match[0].removeprefix(match["before"] or "")
    fewest, most = _PHONE_DIGITS
    if number.startswith("+"):
        fewest = _NORTH_AMERICAN if number.startswith("+1") else _INTERNATIONAL
    return fewest <= len(_digits(number)) <= most and not _DATE.match(number)


def _digits(text: str) -> str:
    return "".join(character for character in text if character.isdigit())


def _has_digits(text: str) -> bool:
    return _SOME_DIGITS.search(text) is not None


_SOME_DIGITS = re.compile(r"[0-9][0-9.:)/ -]{0,2}[0-9]")
_KINDS: dict[str, tuple[Callable[[str], bool], re.Pattern[str], Callable[[re.Match[str]], bool]]] = {
    "email": (lambda text: "@" in text, _EMAIL, _is_email),
    "card": (_has_digits, _CARD, _is_card),
    "ip": (lambda text: ":" in text or _has_digits(text), _IP, _is_address),
    "phone": (_has_digits, _PHONE, _is_phone),
}
"""For each kind whether a text can hold it, the form, and whether something of that form is one."""
