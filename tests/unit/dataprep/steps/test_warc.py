"""Web archives give a document a page, and what is damaged in them costs as little as can be."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest
import zstandard

from kindling_api.v1alpha1.dataset_build import Source
from kindling_dataprep.records import Document, Remark, Removal
from kindling_dataprep.steps import faults
from kindling_dataprep.steps.read import list_inputs, read
from kindling_storage import open_store

PROSE = "The river rose in the night, and by the morning it stood at the door of the mill."
HTML = f"""<html><head><title>A title</title><script>var x = "no text";</script></head><body>
<nav><ul><li><a href="/">Home</a></li><li><a href="/about">About</a></li></ul></nav>
<h1>The flood</h1><p>{PROSE}</p><p>Nobody slept&nbsp;&mdash; café.</p><pre>x  = 1</pre>
<footer>Copyright</footer></body></html>""".encode()
TEXT = f"The flood\n\n{PROSE}\n\nNobody slept\xa0— café.\n\nx  = 1"


def record(kind: str, block: bytes, *, length: int | None = None) -> bytes:
    """A record of a WARC file."""
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Record-ID: <urn:uuid:{len(block):032}>\r\n"
        "WARC-Date: 2024-01-01T00:00:00Z\r\nWARC-Target-URI: http://example.org/\r\n"
        f"Content-Type: application/http\r\nContent-Length: {len(block) if length is None else length}\r\n\r\n"
    )
    return head.encode() + block + b"\r\n\r\n"


def http(body: bytes, *headers: str, status: str = "200 OK", kind: str = "text/html; charset=utf-8") -> bytes:
    """An HTTP response."""
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Type: {kind}", *headers, "", ""]).encode() + body


def response(body: bytes, *headers: str, **options: str) -> bytes:
    return record("response", http(body, *headers, **options))


def read_bytes(folder: Path, name: str, data: bytes) -> list[tuple[int, str]]:
    """(record number, text) of a document, (record number, why) of a removal by `badRecord` or `noPage`."""
    (folder / name).write_bytes(data)
    source = Source(uri=str(folder / name))
    found = []
    for span in list_inputs([source], open_store=open_store):
        for each in read(span, source):
            if isinstance(each, Remark):
                continue
            number = int(each.id.removeprefix(f"0/{name}#"))
            found.append((number, each.text if isinstance(each, Document) else f"{SHORT[each.rule]}: {each.measure}"))
    return found


SHORT = {"badRecord": "bad", "noPage": "none"}
INFO = record("warcinfo", b"software: test\r\n")
REQUEST = record("request", b"GET / HTTP/1.1\r\n\r\n")
PAGE = response(HTML)
NOISE = b"".join(hashlib.sha256(bytes([number])).hexdigest().encode() for number in range(255)) * 12
LONG = response(HTML.replace(b"</html>", b"<!--" + NOISE + b"--></html>"))
ARCHIVE = [INFO, REQUEST, PAGE, REQUEST, PAGE]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.warc", b"".join(ARCHIVE)),
        ("a.warc.gz", b"".join(map(gzip.compress, ARCHIVE))),
        ("a.warc.gz", gzip.compress(b"".join(ARCHIVE))),
        ("a.warc.zst", b"".join(map(zstandard.compress, ARCHIVE))),
    ],
    ids=["plain", "gzip, a member a record", "gzip, one member", "zstandard, a frame a record"],
)
def test_pages_are_documents_and_all_other_records_are_told(tmp_path: Path, name: str, data: bytes) -> None:
    other = "none: type"
    assert read_bytes(tmp_path, name, data) == [(1, other), (2, other), (3, TEXT), (4, other), (5, TEXT)]


def test_the_texts_of_a_wet_file_are_documents(tmp_path: Path) -> None:
    texts = ["Café\nau lait\n", "", "x" * 100_000]
    data = INFO + b"".join(record("conversion", text.encode()) for text in texts)
    assert read_bytes(tmp_path, "CC-MAIN-1.warc.wet.gz", gzip.compress(data)) == list(
        enumerate(["none: type", *texts], 1)
    )


CHUNKED = b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (100, HTML[:100], len(HTML) - 100, HTML[100:])
RUSSIAN = "<html><body><p>Река поднялась ночью, и к утру она стояла у двери мельницы.</p></body></html>"
RIVER = "Река поднялась ночью, и к утру она стояла у двери мельницы."


@pytest.mark.parametrize(
    ("block", "found"),
    [
        (http(HTML, "Transfer-Encoding: chunked").replace(HTML, CHUNKED), TEXT),
        (http(gzip.compress(HTML), "Content-Encoding: gzip"), TEXT),
        (http(HTML, kind="application/xhtml+xml"), TEXT),
        (http(b"plain  text\n", kind="text/plain"), "plain  text\n"),
        (http(RUSSIAN.encode("cp1251"), kind="text/html; charset=windows-1251"), RIVER),
        (http(b'<meta charset="windows-1251">' + RUSSIAN.encode("cp1251"), kind="text/html"), RIVER),
        (http(RUSSIAN.encode(), kind="text/html; charset=iso-8859-1"), RIVER),
        (http(HTML, status="404 Not Found"), "none: status"),
        (http(b"", "Location: /", status="301 Moved Permanently"), "none: status"),
        (http(b"\x89PNG\r\n", kind="image/png"), "none: contentType"),
        (http(HTML[:200], "Content-Encoding: gzip"), "bad: http"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000, "bad: http"),
        (b"no HTTP at all", "none: status"),
        (b"", "none: status"),
        (http(b"<div>" * 5000), "bad: nesting"),
        (http(b"<p>a<b>c</p></i></div><td>d<table><li>e<" + b"\x00\xff" * 5 + b"<p" * 2000), "text"),
        (http(b"<p>x" * 5000), "text"),
        (http(gzip.compress(b"x" * 300_000), "Content-Encoding: gzip"), "bad: bytes"),
        (http(b"x" * 300_000), "bad: bytes"),
    ],
    ids=[
        *("chunked", "gzip", "XHTML", "plain text", "declared encoding", "encoding of the page", "wrongly declared"),
        *("not found", "redirect", "image", "not gzip at all", "endless header", "no HTTP", "empty"),
        *("too deep", "soup", "elements that close themselves", "bomb", "too large"),
    ],
)
def test_a_response_is_a_document_or_says_why_not_and_the_next_one_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: bytes, found: str
) -> None:
    monkeypatch.setattr(faults, "MAX_RECORD_BYTES", 200_000)
    *first, last = read_bytes(tmp_path, "a.warc", record("response", block) + PAGE)
    assert last == (2, TEXT)
    if found == "text":
        assert first[0][0] == 1
        assert not first[0][1].startswith("bad")
    else:
        assert first == [(1, found)]


@pytest.mark.parametrize(
    ("name", "data", "found"),
    [
        ("a.warc", (PAGE + PAGE)[:-100], [(1, TEXT), (2, "bad: readable")]),
        ("a.warc.gz", (gzip.compress(LONG) * 2)[:-30], [(1, TEXT), (2, "bad: readable")]),
        ("a.warc.gz", gzip.compress(LONG) * 2 + b"\0" * 100, [(1, TEXT), (2, TEXT)]),
        ("a.warc", PAGE + b"garbage\r\n\r\n" + PAGE, [(1, TEXT), (2, "bad: readable"), (3, TEXT)]),
        ("a.warc", record("response", http(HTML), length=10**12), [(1, "bad: bytes")]),
        ("a.warc", b"<html>no WARC at all</html>" * 100, [(1, "bad: readable")]),
        ("a.warc", b"", []),
    ],
    ids=["truncated", "truncated gzip", "zeros behind", "garbage between", "absurd length", "no WARC", "empty"],
)
def test_what_comes_before_the_damage_is_read(
    tmp_path: Path, name: str, data: bytes, found: list[tuple[int, str]]
) -> None:
    assert read_bytes(tmp_path, name, data) == found


def test_a_fault_is_told_with_the_beginning_of_the_page(tmp_path: Path) -> None:
    (tmp_path / "a.warc").write_bytes(response(b"<div>" * 5000))
    source = Source(uri=str(tmp_path))
    (span,) = list_inputs([source], open_store=open_store)
    (removal,) = read(span, source)
    assert isinstance(removal, Removal)
    assert (removal.rule, removal.threshold, removal.excerpt[:10]) == ("badRecord", 1000.0, "<div><div>")


def test_what_is_no_page_is_told_with_where_it_is_from(tmp_path: Path) -> None:
    (tmp_path / "a.warc").write_bytes(
        REQUEST + response(HTML, status="404 Not Found") + response(b"", kind="image/png")
    )
    source = Source(uri=str(tmp_path))
    (span,) = list_inputs([source], open_store=open_store)
    found = [(each.rule, each.measure, each.value, each.threshold, each.excerpt) for each in read(span, source)]
    assert found == [
        ("noPage", "type", None, None, "request http://example.org/"),
        ("noPage", "status", 404.0, 200.0, "http://example.org/"),
        ("noPage", "contentType", None, None, "image/png http://example.org/"),
    ]


def test_a_file_of_html_is_read_as_a_page_is(tmp_path: Path) -> None:
    article = "<p>El niño comió una piña en la montaña, y después soñó con el año que pasó junto al río.</p>" * 5
    page = f"<html><head><meta charset=latin-1></head><nav>Home</nav><article>{article}</article></html>"
    (tmp_path / "a.html").write_bytes(page.encode("latin-1"))
    (tmp_path / "b.htm.gz").write_bytes(gzip.compress(page.encode()))
    (tmp_path / "c.xhtml").write_bytes(b"<div>" * 2000)
    source = Source(uri=str(tmp_path))
    first, second, nested = (
        record for span in list_inputs([source], open_store=open_store) for record in read(span, source)
    )
    assert isinstance(first, Document) and isinstance(second, Document)
    assert first.text == second.text and first.text.startswith("El niño") and "Home" not in first.text
    assert isinstance(nested, Removal) and (nested.measure, nested.unread) == ("nesting", 10_000)
