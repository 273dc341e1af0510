"""Jinja as transformers sets it up for chat templates, with marks around what the assistant says."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

# Characters that Unicode keeps for a program's own use (noncharacters), and that no text has.
BEGIN, END = "\ufdd0", "\ufdd1"
"""Stand around what is generated."""


def compiled(source: str) -> jinja2.Template:
    """A template, ready to render.

    Raises:
        TemplateSyntaxError: it is none.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, undefined=_Strict, extensions=[_Generation, loopcontrols]
    )
    environment.globals |= {"raise_exception": _raise, "strftime_now": lambda form: datetime.now().strftime(form)}
    environment.filters["tojson"] = _to_json
    return environment.from_string(source)


class _Generation(Extension):
    """`{% generation %} … {% endgeneration %}`: what stands between is between our characters in the text."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Any) -> str:
        return f"{BEGIN}{caller()}{END}"


class _Strict(jinja2.Undefined):
    """May be asked for, as transformers' own templates do, but not written: a name misspelt would leave a hole."""

    __str__ = __iter__ = __len__ = jinja2.Undefined._fail_with_undefined_error


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers has it: Jinja's own filter escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
