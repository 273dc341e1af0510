"""Whether a text is source code, told from its lines: a model of languages takes code for the language of its comments.

A line is one of code where it has what prose has not: it ends in `;`, `{`, `}` or `):`, begins as a statement does,
assigns, compares, or calls with nothing between the brackets. Comments and blank lines are left out. No list of words
decides alone, since prose may begin a line with `if` or `for`.
"""

from __future__ import annotations

import re

CHARACTERS_READ = 4_000
"""From the beginning of a text, and as many from its middle: a file of code may begin with pages of comments."""
LONGEST = 40_000
"""Characters of a text in which comments and docstrings over several lines are looked for."""
FRACTION = 0.4
"""Of the lines that are no comments; in prose with examples in it fewer are code."""
_FEWEST_LINES = 5
_SIGNS, _SIGNS_FRACTION = "(){}[]=;", 0.02
"""A text with a smaller fraction of these characters is no code, and its lines are not looked at."""

_BLOCK = re.compile(r'"""(?:.*?)"""|/\*(?:.*?)\*/', re.DOTALL)
_COMMENT = re.compile(r"\s*(?:#(?!\s*(?:include|define|ifdef|ifndef|endif)\b)|//|/\*|\*|--\s|\"\"\"|'''|;)")
_CODE = re.compile(
    r"""
      [;{}]\s*$ | \)\s*(?:->\s*[\w\[\], .|]+)?:\s*$ | ^\s*[\])}]+[,;]?\s*$      # how a line ends
    | ^\s*(?:else|try|finally)\s*[:{]\s*$
    | ^\s*(?:def|class|fn|func|function|public|private|static|struct|enum|impl|namespace|interface)\s+\w+.*[({:]
    | ^\s*(?:import\s+[\w.]+|from\s+[\w.]+\s+import\b|package\s+\w+$|using\s+\w+)
    | ^\s*\#\s*(?:include|define|ifn?def|endif)\b
    | ^\s*(?:if|elif|for|while|with|switch|except)\b.*[:{]\s*$
    | ^\s*(?:return|raise|yield|await|throw|assert|del|let|const|var)\b\s*[\w("'\[{-]*.*[\w)\]"'}]\s*;?$(?<![.!?])
    | ^\s*(?:SELECT|INSERT\s+INTO|UPDATE|DELETE\s+FROM|CREATE|ALTER|DROP|FROM|WHERE|JOIN|VALUES|GROUP\s+BY|ORDER\s+BY)\b
    | \w\s*(?:[-+*/|&^%:]?=|[=!<>]=|:=|<-|=>|->|&&|\|\|)\s*[\w("'\[{&*-] | \w\(\) | \w\.\w+\( | \w\[\w+\]
    """,
    re.VERBOSE,
)


def has_signs(text: str) -> bool:
    """Whether a text has as many brackets, braces and the like as code has."""
    return sum(map(text.count, _SIGNS)) >= _SIGNS_FRACTION * len(text)


def is_code(text: str) -> bool:
    """Whether enough of the lines of a text are code; a text of fewer than five lines is none."""
    text = _BLOCK.sub("", text[:LONGEST]) if '"""' in text or "/*" in text else text
    middle = max(CHARACTERS_READ, len(text) // 2)
    some = text[:CHARACTERS_READ] + text[middle : middle + CHARACTERS_READ]
    if not has_signs(some):
        return False
    lines = [line for line in some.splitlines() if line.strip() and not _COMMENT.match(line)]
    if len(lines) < _FEWEST_LINES:
        return False
    return sum(_CODE.search(line) is not None for line in lines) >= FRACTION * len(lines)
