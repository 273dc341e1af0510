"""An error carries what there is to know; nobody reads it out of its sentence, or writes that anew."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from kindling_api import errors

ROOT = Path(__file__).parents[2]
OURS = {name for name in dir(errors) if name.endswith("Error")}
EDITS = {
    "replace",
    "removeprefix",
    "removesuffix",
    "partition",
    "rpartition",
    "startswith",
    "endswith",
    "split",
    "find",
}


def handlers() -> Iterator[tuple[str, ast.ExceptHandler]]:
    """Wherever the product catches an error of ours by name."""
    for path in sorted(ROOT.glob("*/kindling_*/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            named = node.type if isinstance(node, ast.ExceptHandler) and node.name else None
            if named is not None and {each.id for each in ast.walk(named) if isinstance(each, ast.Name)} & OURS:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def reads_its_message(handler: ast.ExceptHandler) -> bool:
    """Whether a handler takes the sentence apart, or looks for words in it."""
    sentence = f"str({handler.name})"
    for node in ast.walk(handler):
        if isinstance(node, ast.Attribute) and node.attr in EDITS and ast.unparse(node.value) == sentence:
            return True
        if isinstance(node, ast.Compare) and any(ast.unparse(each) == sentence for each in node.comparators):
            return True
    return False


def test_no_code_reads_the_message_of_an_error_of_ours() -> None:
    found = list(handlers())
    assert len(found) > 20, "the product is where it was looked for"
    assert [where for where, handler in found if reads_its_message(handler)] == []


def test_a_message_that_is_edited_is_seen() -> None:
    edited = ("str(error).replace('a', 'b')", "'a' in str(error)", "str(error).partition(':')[0]")
    for text in edited:
        (handler,) = ast.parse(f"try: pass\nexcept SpecError as error: raise SpecError({text})").body[0].handlers  # type: ignore[attr-defined]
        assert reads_its_message(handler), text
