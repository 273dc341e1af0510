"""Lines that belong to a site and not to its pages: those that many documents of a host hold, and notices by wording.

A line counts once for each different text that holds it, so that copies of one page are no proof; it is compared
without case and white space around and within. What stands for a host is that of the record's URL, or else the source.
Finding repeated lines takes two passes over the texts, of which `stages.lines` makes the first.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import urlsplit

import xxhash

from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_api.v1alpha1.filters import Boilerplate
from kindling_dataprep.records import Document

_LABEL = r"""(?:
    home(?:page)?|about(?:[ ]us)?|contacts?(?:[ ]us)?|log[ ]?(?:in|out)|sign[ ]?(?:in|up|out)|register|search|menu|blog
  | site[ ]?map|help|faqs?|privacy(?:[ ](?:policy|notice))?|terms(?:[ ](?:of[ ](?:use|service)|(?:and|&)[ ]conditions))?
  | cookies?(?:[ ](?:policy|settings|preferences))?|legal(?:[ ]notice)?|disclaimer|imprint|careers|jobs|press|news
  | newsletter|subscribe|share|tweet|print|e-?mail|rss|facebook|twitter|linkedin|instagram|youtube|pinterest|whatsapp
  | next|prev(?:ious)?|back|top|read[ ]more|more|comments?|reply|permalink|advertis(?:e|ing|ements?)|accessibility
)"""
_NOTICE = re.compile(
    rf"""(?:skip[ ]to[ ](?:main[ ])?(?:content|navigation)|(?:back|return)[ ]to[ ](?:the[ ])?top|jump[ ]to[ ]navigation
  | {_LABEL}(?:\s*[|·•»›>/]\s*{_LABEL})+                                # Home | About us | Contact
  | (?:read|accept|reject|manage|allow)[ ](?:our[ ]|all[ ])?cookies(?:[ ](?:policy|settings))?
  | (?:this|our)[ ](?:web)?site[ ]uses[ ]cookies\b.*|we[ ](?:and[ ]our[ ]partners[ ])?use[ ]cookies\b.*
  | by[ ](?:continuing[ ]to[ ](?:use|browse)|using)[ ](?:this|our)[ ](?:web)?site\b.*
  | (?:.{{0,80}}[ .,|])?all[ ]rights[ ]reserved(?:[ ]worldwide)?\W*(?:{_LABEL}\W*)*
  | (?:copyright[ ])?(?:©|\(c\))[ ]?(?:copyright[ ])?[0-9]{{4}}(?:\s*[-–][ ]?[0-9]{{4}})?\b.{{0,80}}
  | (?:privacy|cookie)[ ]policy|terms[ ](?:of[ ](?:use|service)|(?:and|&)[ ]conditions)
)[.!]?""",
    re.VERBOSE | re.IGNORECASE,
)
"""Whole lines, in English."""


def boilerplate_of(spec: DatasetBuildSpec) -> Boilerplate | None:
    """What the spec asks about boilerplate, if it asks anything."""
    return next((each.boilerplate for each in spec.filters if each.boilerplate is not None), None)


def host_of(document: Document) -> str:
    """The host of a document's page, in lower case and without `www.`; of a document without one, its source."""
    try:
        host = urlsplit(document.url).hostname
    except ValueError:  # no URL
        host = None
    return host.removeprefix("www.") if host else f"source {document.source}"


def line_hashes(document: Document, spec: Boilerplate) -> set[int]:
    """64-bit hashes of the document's different lines that may be boilerplate; those of another host are others."""
    seed = xxhash.xxh3_64_intdigest(host_of(document).encode())
    lines = (line for line in document.text.split("\n") if len(line) <= spec.max_line_length)
    return {_hash(line, seed) for line in map(_normalised, lines) if line}


def without_boilerplate(document: Document, repeated: Collection[int], spec: Boilerplate) -> tuple[str, list[str]]:
    """The text without its boilerplate, and the lines that went; blank lines are left.

    Args:
        document: What it is taken from.
        repeated: Hashes, by `line_hashes`, of the lines that enough documents hold.
        spec: How long a line may be.
    """
    seed = xxhash.xxh3_64_intdigest(host_of(document).encode())
    kept: list[str] = []
    removed: list[str] = []
    for line in document.text.split("\n"):
        normalised = _normalised(line) if len(line) <= spec.max_line_length else ""
        if normalised and (_hash(normalised, seed) in repeated or (spec.notices and _NOTICE.fullmatch(normalised))):
            removed.append(line)
        else:
            kept.append(line)
    return "\n".join(kept), removed


def _normalised(line: str) -> str:
    return " ".join(line.split()).lower()


def _hash(line: str, seed: int) -> int:
    return xxhash.xxh3_64_intdigest(line.encode(), seed)
