"""Pornography, by the words that a text is made of and by the sites that it links to.

C4 (arXiv:1910.10683, section 2.2) removes a page for one word of a list that also holds ordinary and medical words, and
FineWeb (arXiv:2406.17557, section 3.1) by the address of a page. The lexicon here holds only words that hardly occur
elsewhere, in English, and asks for several of them; no threshold is published for that.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Collection, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_dataprep.steps.quality import Floats, Integers, fraction, of_words, sums
from kindling_dataprep.steps.words import Words
from kindling_storage import ObjectStore


def _list(name: str) -> frozenset[str]:
    return frozenset(files("kindling_dataprep.steps").joinpath("lists", name).read_text().split())


FEWEST_WORDS = 3
"""Fewer words of the lexicon count as none, however short the text is."""

LEXICON = _list("adult-words.txt")
"""In lower case."""

SITES = _list("adult-sites.txt")
"""Domains, among them top-level ones made for the purpose, in lower case; what lies below them counts with them."""

_HOST = re.compile(r"(?:https?://|\bwww\.)(?:[^\s/@]*@)?(?:www\.)?([\w-]+(?:\.[\w-]+)+)", re.IGNORECASE)
_DOMAIN = re.compile(r"[\w-]+(?:\.[\w-]+)*")
_EDGES = string.punctuation + "“”‘’„«»…–—"


def adult(
    texts: Sequence[str], words: Words, *, urls: Sequence[str] = (), sites: Collection[str] = SITES
) -> dict[str, Integers | Floats]:
    """The fraction of words in the lexicon, without punctuation and case, and the number of links to `sites`.

    Where a text was found, if `urls` says so, counts as a link.
    """
    links = sums(words, of_words(words, lambda word: _links(word, sites)))
    if urls:
        links += np.fromiter((_links(url, sites) for url in urls), dtype=np.int64, count=len(urls))
    found = sums(words, of_words(words, lambda word: word.lower().strip(_EDGES) in LEXICON))
    return {
        "lexiconFraction": fraction(np.where(found < FEWEST_WORDS, 0, found), np.diff(words.starts)),
        "siteLinks": links,
    }


def blocklist_of(spec: DatasetBuildSpec) -> str | None:
    """The URI of the user's list of domains, if the spec names one."""
    return next((each.adult.blocklist for each in spec.filters if each.adult is not None), None)


def fetch(uri: str, open_store: Callable[[str], ObjectStore]) -> bytes:
    """The user's list of domains at `uri`; a path is one of this machine.

    Raises:
        SpecError: there is none, or it is something else.
        StorageError: the store cannot be reached, or refuses.
    """
    place = uri if "://" in uri else Path(uri).absolute().as_uri()
    folder, _, name = place.rpartition("/")
    store = open_store(folder)
    if not store.exists(name):
        raise _no_list(f"nothing at {uri}")
    data = store.get(name)
    domains_in(data, uri)
    return data


def domains_in(data: bytes, where: str) -> frozenset[str]:
    """The domains in a list, one a line; what follows a `#` is a remark.

    Raises:
        SpecError: a line is no domain.
    """
    found = set()
    for number, line in enumerate(data.decode("utf-8", errors="replace").splitlines(), start=1):
        domain = line.partition("#")[0].strip().lower().removeprefix("www.")
        if domain and _DOMAIN.fullmatch(domain) is None:
            raise _no_list(f"{domain[:80]!r} in line {number} of {where}")
        found.add(domain)
    return frozenset(found - {""})


def _no_list(found: str) -> SpecError:
    allowed, remedy = "a file of domains, one a line, as in example.com", "correct the list, or its URI"
    return SpecError(explain("spec.filters.adult.blocklist", found=found, allowed=allowed, remedy=remedy))


def _links(text: str, sites: Collection[str]) -> int:
    return sum(_is_of(host.lower().split("."), sites) for host in _HOST.findall(text))


def _is_of(parts: Sequence[str], sites: Collection[str]) -> bool:
    return any(".".join(parts[start:]) in sites for start in range(len(parts)))
