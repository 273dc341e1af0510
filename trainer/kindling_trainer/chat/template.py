"""Chat templates: from a dialogue to text and tokens, and which of them the model is to say.

A template is Jinja, with the variables that transformers gives it. What the assistant says stands between
`{% generation %}` and `{% endgeneration %}`, as transformers has it too; a template without these tags serves as well,
as long as what it makes of a dialogue begins with what it makes of the dialogue's beginning. Servers do not know the
tags, so that a model is exported with a template in which they do nothing.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jinja2
import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Encoding, Tokenizer
from tokenizers.models import BPE

from kindling_api.errors import DataError, SpecError, explain, finding
from kindling_trainer.chat.jinja_environment import BEGIN, END, compiled
from kindling_trainer.chat.message import Message, Messages
from kindling_trainer.chat.special_tokens import NAMES

DEFAULT = """\
{%- set marks = {'system': '<|system|>', 'user': '<|user|>', 'assistant': '<|assistant|>'} %}
{%- for message in messages %}
    {{- marks[message['role']] }}
    {%- if message['role'] == 'assistant' %}
        {%- generation %}
            {{- message['content'] + '<|end|>' }}
        {%- endgeneration %}
    {%- else %}
        {{- message['content'] + '<|end|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- marks['assistant'] }}
{%- endif %}
"""
"""Every message begins and ends with a token of its own, so that no token can reach across their borders."""

_TOKEN = re.compile(r"<\|\w+\|>")
_TAG = re.compile(r"({%[-+]?\s*)(end)?generation(\s*[-+]?%})")

_BREAK = "\ufdd2"  # stands in what only looks like a special token
_OURS = re.compile(f"[{BEGIN}{END}{_BREAK}]")


class Encoded(NamedTuple):
    """One sequence."""

    tokens: NDArray[np.int32]
    counted: NDArray[np.bool_]
    """Whether the token is among those that the model is to say."""


class RenderedDialogue(NamedTuple):
    """The text of a dialogue."""

    pieces: list[str]
    """What is encoded by itself: two pieces meet where somebody's words look like a special token."""
    said: list[tuple[int, int]]
    """From which character to which the assistant speaks, in the pieces one after the other."""


class ChatTemplate:
    """A template together with the tokenizer for what it makes.

    Raises:
        SpecError: the template is wrong, as a text or for a dialogue.
    """

    def __init__(self, source: str, tokenizer: Tokenizer, named: Mapping[str, str] | None = None) -> None:
        """`tokenizer` has the template's special tokens (`add_special_tokens`), `named` those that it may ask for by
        name (`SpecialTokens.named`); one that is missing is nothing, as in transformers."""
        self.source, self.tokenizer = source, tokenizer
        missing = {name: jinja2.Undefined(name=name) for name in NAMES}
        self._variables = missing | dict(named or {}) | {"tools": None, "documents": None}
        self._special = {
            token.content: id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special
        }
        try:
            self._template = compiled(source)
        except jinja2.TemplateSyntaxError as error:
            raise _wrong(f"{error} in line {error.lineno}") from error
        self._known: dict[str, bool] = {}

    @property
    def exported(self) -> str:
        """The template for others: the same text for every dialogue, without the tags that only training needs."""
        return _TAG.sub(lambda tag: f"{tag[1]}{'endif' if tag[2] else 'if true'}{tag[3]}", self.source)

    def stop_token(self) -> int | None:
        """The token with which the model ends its turn; None where the template gives it none.

        A turn that another one follows tells it: what ends the whole dialogue may come after the last.
        """
        two, one = self.example() * 2, self.example()
        try:
            (encoded,) = self.encode([(two, 0)])
        except SpecError:  # some templates know one turn alone
            (encoded,) = self.encode([(one, 0)])
        said = encoded.counted.nonzero()[0]
        first = said[: 1 + int(np.argmax(np.append(np.diff(said) > 1, True)))]
        special = set(self._special.values())
        return next((int(token) for token in encoded.tokens[first][::-1] if int(token) in special), None)

    def example(self) -> Messages:
        """A dialogue of two short messages."""
        word = next(filter(self.knows, ("a", "A", "0", ".")), "")
        return (Message("user", word), Message("assistant", word))

    def knows(self, character: str) -> bool:
        """Whether the tokenizer keeps a character: BPE without bytes to fall back to leaves unknown ones out."""
        if character not in self._known:
            silent = isinstance(self.tokenizer.model, BPE) and not _OURS.match(character)
            self._known[character] = not silent or bool(self._encodings([character])[0].ids)
        return self._known[character]

    def render(self, messages: Iterable[Message], *, add_generation_prompt: bool = False) -> str:
        """The text of a dialogue; with `add_generation_prompt`, up to where the assistant begins to speak."""
        return _OURS.sub("", self._render(tuple(messages), add_generation_prompt))

    def prompt(self, messages: Iterable[Message]) -> list[int]:
        """The tokens after which the assistant begins to speak."""
        (tokens, _) = next(self._tokens([_parted(self._render(tuple(messages), True)).pieces]))
        return [int(token) for token in tokens]

    def encode(self, dialogues: Sequence[tuple[Messages, int]]) -> Iterator[Encoded]:
        """The tokens of dialogues, of which those count that the assistant says in and after a message's number.

        As in transformers, a dialogue is encoded as one text, and what counts goes from the token that has the first
        character said to the first one that has the last.
        """
        many = [self._rendered(messages) for messages, _ in dialogues]
        encoded = self._tokens([rendered.pieces for rendered in many])
        for rendered, (messages, learned), (tokens, offsets) in zip(many, dialogues, encoded, strict=True):
            counted = np.zeros(len(tokens), np.bool_)
            for start, end in self._learned(rendered, messages, learned):
                begins, ends = offsets[:, 0], offsets[:, 1]
                reached = ((begins < end) & (ends >= end)).nonzero()[0]
                stop = reached[0] + 1 if len(reached) else np.count_nonzero(begins < end)
                counted[np.count_nonzero(ends <= start) : stop] = True
            yield Encoded(tokens, counted)

    def _tokens(self, many: list[list[str]]) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int64]]]:
        """Of each list of pieces its tokens [N], and where they begin and end among the characters [N, 2].

        A piece after the first is encoded behind a line break, which is taken off again: some tokenizers put a space
        before whatever begins a text.
        """
        texts = [f"\n{piece}" if number else piece for pieces in many for number, piece in enumerate(pieces)]
        encodings = iter(self._encodings(texts))
        for pieces in many:
            tokens, offsets, length = [np.zeros(0, np.int32)], [np.zeros((0, 2), np.int64)], 0
            for number, piece in enumerate(pieces):
                ids, spans = _arrays(next(encodings))
                if number:
                    inside = spans[:, 1] > 1
                    if (spans[inside, 0] < 1).any():  # a token reaches across the line break
                        ids, spans = _arrays(self._encodings([piece])[0])
                    else:
                        ids, spans = ids[inside], spans[inside] - 1
                tokens.append(ids)
                offsets.append(spans + length)
                length += len(piece)
            yield np.concatenate(tokens), np.concatenate(offsets)

    def _encodings(self, texts: list[str]) -> list[Encoding]:
        try:
            encodings: list[Encoding] = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        except Exception as error:  # the library raises Exception itself
            remedy = "use a model whose tokenizer falls back to bytes, or leave such texts out"
            allowed = "texts that the tokenizer has tokens for"
            raise DataError(finding(found=error, allowed=allowed, remedy=remedy)) from error
        return encodings

    def _rendered(self, messages: Messages) -> RenderedDialogue:
        text = self._render(messages, False)
        if BEGIN not in text:
            text = self._marked_by_prefix(messages, text)
        rendered, said = _parted(text), sum(message.role == "assistant" for message in messages)
        if len(rendered.said) < said:
            raise _wrong(
                f"{len(rendered.said)} generation blocks in a dialogue in which the assistant speaks {said} times",
                remedy="put {% generation %} … {% endgeneration %} around each of its messages",
            )
        return rendered

    def _learned(self, rendered: RenderedDialogue, messages: Messages, learned: int) -> list[tuple[int, int]]:
        """What is said from a message's number on, but for what its record takes out. A template may have several
        blocks for one message, so that they are told apart by what the messages before it make."""
        spoken = [number for number, message in enumerate(messages) if message.role == "assistant"]
        counted = {number for number in spoken if number >= learned and messages[number].learned}
        if len(counted) == len(spoken):
            return rendered.said
        if len(rendered.said) == len(spoken):
            return [span for number, span in zip(spoken, rendered.said, strict=True) if number in counted]
        whole = "".join(rendered.pieces)
        begins = [_common(whole, self.render(messages[:number])) if number else 0 for number in spoken]
        return [span for span in rendered.said if spoken[max(0, bisect_right(begins, span[0]) - 1)] in counted]

    def _marked_by_prefix(self, messages: Messages, whole: str) -> str:
        """The text with marks around what the assistant says, where the template has no tags: what comes after the
        prompt of each of its messages."""
        marked, done = "", 0
        for number, message in enumerate(messages):
            if message.role != "assistant":
                continue
            before, after = self._render(messages[:number], True), self._render(messages[: number + 1], False)
            end = len(after) if whole.startswith(after) else self._shared_turn(whole, after)
            if not (whole.startswith(before) and len(before) < end):
                raise _wrong(
                    "no generation blocks, and a text that changes as the dialogue goes on, so that what the assistant "
                    "says cannot be found",
                    remedy="put {% generation %} … {% endgeneration %} around its messages",
                )
            marked += whole[done : len(before)] + BEGIN + whole[len(before) : end] + END
            done = end
        return marked + whole[done:]

    def _shared_turn(self, whole: str, after: str) -> int:
        """How far a text goes that only has more after a turn if the dialogue ends there, as Phi-3's; 0 where the turn
        itself is another."""
        shared = _common(whole, after)
        for token in self._special:
            for text in (whole, after):
                start = text.find(token, max(0, shared - len(token) + 1), shared + len(token) - 1)
                shared = start if 0 <= start < shared else shared
        return shared if whole[:shared].rstrip().endswith(tuple(self._special)) else 0

    def _render(self, messages: Messages, add_generation_prompt: bool) -> str:
        """The text, with our characters around what is generated, and in what only looks like a special token."""
        plain = []
        for message in messages:
            fields = {"role": message.role, "content": self._harmless(message.content)}
            if message.reasoning is not None:  # transformers gives it both names
                fields |= dict.fromkeys(("reasoning_content", "thinking"), self._harmless(message.reasoning))
            plain.append(fields)
        try:
            return self._template.render(messages=plain, add_generation_prompt=add_generation_prompt, **self._variables)
        except (jinja2.TemplateError, TypeError, KeyError, AttributeError, ValueError, OverflowError) as error:
            raise _wrong(error) from error

    def _harmless(self, content: str) -> str:
        """A text in which no special token can be found: what somebody says must not end their message."""
        content = _OURS.sub("", content)
        for token in self._special:
            if token in content:
                content = content.replace(token, token[:1] + _BREAK + token[1:])
        return content


def chosen_template(asked: str, own: str | None) -> str:
    """The template of a run that asks for one, over a model that may have one of its own."""
    return own or DEFAULT if asked == "default" else asked


def add_special_tokens(tokenizer: Tokenizer, source: str) -> list[str]:
    """Give `tokenizer` the tokens of the form `<|word|>` that a template uses and it does not have.

    Returns:
        Those added, in the order of their ids.
    """
    missing = [token for token in dict.fromkeys(_TOKEN.findall(source)) if tokenizer.token_to_id(token) is None]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in missing])
    return missing


def _parted(text: str) -> RenderedDialogue:
    """A text without our characters, cut where one breaks a token, and what they stand around."""
    pieces, said, length, begin = [""], list[tuple[int, int]](), 0, 0
    for part in re.split(f"({_OURS.pattern})", text):
        if part == BEGIN:
            begin = length
        elif part == END:
            said.append((begin, length))
        elif part == _BREAK:
            pieces.append("")
        else:
            pieces[-1] += part
            length += len(part)
    return RenderedDialogue(pieces, said)


def _common(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    unlike = (number for number, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(unlike, min(len(one), len(other)))


def _arrays(encoding: Encoding) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    return np.array(encoding.ids, np.int32), np.array(encoding.offsets, np.int64).reshape(-1, 2)


def _wrong(found: object, remedy: str = "correct the template, or use `default`") -> SpecError:
    allowed = "a Jinja template over messages and add_generation_prompt, as transformers has it"
    return SpecError(explain("spec.chatTemplate", found=found, allowed=allowed, remedy=remedy))
