"""From the records of `spec.data` to token sequences in memory, and what was found on the way. Torch-free.

Nothing is ever cut in the middle of an answer: the end of an answer is what a model must not forget to learn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kindling_api.base import digest_of
from kindling_api.errors import DataError, finding
from kindling_storage.jsonl import check_readable
from kindling_trainer.align.data.check import Findings, answer_fault, check_characters, prompt_fault
from kindling_trainer.align.data.formats import Dialogue, Pair, Prompt, dialogue, pair, prompt
from kindling_trainer.align.data.forms import check_prompt, unread
from kindling_trainer.align.data.read import DataSource, Record, naming_record
from kindling_trainer.chat.message import Messages
from kindling_trainer.chat.template import ChatTemplate, Encoded
from kindling_trainer.data.order import grouped

_TOGETHER = 1024
"""Records that are encoded at once: enough to use all cores, and few in memory."""


class Sequences:
    """Token sequences, and which of their tokens count."""

    def __init__(self, encoded: Iterable[Encoded]) -> None:
        parts = list(encoded)
        self._tokens: NDArray[np.int32] = np.concatenate([part.tokens for part in parts] or [np.zeros(0, np.int32)])
        self._counted: NDArray[np.bool_] = np.concatenate([part.counted for part in parts] or [np.zeros(0, np.bool_)])
        self.lengths: NDArray[np.int64] = np.array([len(part.tokens) for part in parts], np.int64)
        """Tokens of each sequence."""
        self._ends = np.cumsum(self.lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, number: int) -> Encoded:
        end = int(self._ends[number])
        start = end - int(self.lengths[number])
        return Encoded(self._tokens[start:end], self._counted[start:end])

    def __add__(self, other: Sequences) -> Sequences:
        """These sequences, and after them the others."""
        return Sequences(encoded for part in (self, other) for encoded in part)

    def __iter__(self) -> Iterator[Encoded]:
        return (self[number] for number in range(len(self)))

    @property
    def digest(self) -> str:
        """Digest of all tokens and of which of them count."""
        return digest_of(self._tokens.tobytes() + self._counted.tobytes() + self.lengths.tobytes())


@dataclass(frozen=True)
class Pairs:
    """The two answers of each pair, each after its prompt, in which nothing counts."""

    chosen: Sequences
    rejected: Sequences

    def __len__(self) -> int:
        return len(self.chosen)

    def __add__(self, other: Pairs) -> Pairs:
        """These pairs, and after them the others."""
        return Pairs(self.chosen + other.chosen, self.rejected + other.rejected)

    @property
    def digest(self) -> str:
        """Digest of the chosen and the rejected sequences."""
        return digest_of(f"{self.chosen.digest} {self.rejected.digest}".encode())


@dataclass(frozen=True)
class TokenPrompt:
    """A prompt as tokens, up to where the model begins to speak."""

    tokens: list[int]
    prompt: Prompt
    place: str
    """Where its record stands, for people."""


def read_dialogues(
    sources: Sequence[DataSource], template: ChatTemplate, *, context: int, all_tokens: bool = False
) -> tuple[Sequences, Findings]:
    """What supervised fine-tuning learns from.

    A dialogue longer than the context ends with the last answer that fits.

    Args:
        context: of the model; a sequence has at most one token more, since the last is only predicted.
        all_tokens: whether every token counts, and not those of the assistant alone.

    Raises:
        DataError: a record is wrong, and it is said where.
    """
    findings, kept = Findings(), list[Encoded]()
    for batch in grouped(_records(sources, findings), _TOGETHER):
        good: list[tuple[str, Dialogue]] = []
        for record in batch:
            with naming_record(record.place):
                findings.unread |= unread(record.fields, record.form)
                found = dialogue(record.fields, record.form)
                if all_tokens and found:
                    _check_all_learned(found.messages)
            if found is None:
                findings.unwanted += 1
            elif fault := answer_fault(found.messages[found.learned :]):
                findings.skip(fault, record.place)
            else:
                good.append((record.place, found))
        encodings = _encode(template, [(found.messages, found.learned) for _, found in good], batch)
        for (place, found), encoded in zip(good, encodings, strict=True):
            fitting = encoded if len(encoded.tokens) <= context + 1 else _cut(found, template, context)
            if fitting is None:
                findings.skip("long", place)
                continue
            findings.cut += fitting is not encoded
            counted = np.ones_like(fitting.counted) if all_tokens else fitting.counted
            kept.append(Encoded(fitting.tokens, counted))
            _count(findings, kept[-1])
            findings.lengths.append(len(fitting.tokens))
    return Sequences(kept), findings


def read_pairs(sources: Sequence[DataSource], template: ChatTemplate, *, context: int) -> tuple[Pairs, Findings]:
    """What DPO and a reward model learn from; a pair of which either answer does not fit is left out.

    Raises:
        DataError: as `read_dialogues`.
    """
    findings, chosen, rejected = Findings(), list[Encoded](), list[Encoded]()
    for batch in grouped(_records(sources, findings), _TOGETHER):
        good: list[tuple[str, Pair]] = []
        for record in batch:
            with naming_record(record.place):
                findings.unread |= unread(record.fields, record.form)
                found = pair(record.fields, record.form)
            fault = prompt_fault(found.prompt) or answer_fault(found.chosen) or answer_fault(found.rejected)
            if found.chosen == found.rejected:
                fault = "equal"
            if fault:
                findings.skip(fault, record.place)
            else:
                good.append((record.place, found))
        both = [
            (found.prompt + answer, len(found.prompt)) for _, found in good for answer in (found.chosen, found.rejected)
        ]
        encodings = iter(_encode(template, both, batch))
        for (place, _), one, other in zip(good, encodings, encodings, strict=True):
            if max(len(one.tokens), len(other.tokens)) > context + 1:
                findings.skip("long", place)
                continue
            chosen.append(one)
            rejected.append(other)
            _count(findings, one)
            _count(findings, other)
            findings.lengths.append(len(one.tokens) + len(other.tokens))
    return Pairs(Sequences(chosen), Sequences(rejected)), findings


def read_prompts(
    sources: Sequence[DataSource], template: ChatTemplate, *, longest: int
) -> tuple[list[TokenPrompt], Findings]:
    """What the model is asked in training by rewards; a prompt of more than `longest` tokens is left out.

    Raises:
        DataError: as `read_dialogues`.
    """
    findings, kept = Findings(), list[TokenPrompt]()
    for record in _records(sources, findings):
        with naming_record(record.place):
            check_prompt(record.fields)
            found = prompt(record.fields, record.form)
            check_characters(template, (message.content for message in found.messages))
            tokens = template.prompt(found.messages)
        if len(tokens) > longest:
            findings.skip("long", record.place)
            continue
        kept.append(TokenPrompt(tokens, found, record.place))
        findings.tokens += len(tokens)
        findings.lengths.append(len(tokens))
        findings.longest = max(findings.longest, len(tokens))
    return kept, findings


def _records(sources: Sequence[DataSource], findings: Findings) -> Iterator[Record]:
    for source in sources:
        first = True
        for record in source.records(findings.unreadable.append):
            if first:
                findings.forms.append(record.form)
            first = False
            findings.readable += 1
            yield record
    check_readable(findings.unreadable, findings.records)


def _encode(template: ChatTemplate, dialogues: list[tuple[Messages, int]], batch: list[Record]) -> list[Encoded]:
    with naming_record(f"{batch[0].place} … {batch[-1].place}"):
        check_characters(template, (message.content for messages, _ in dialogues for message in messages))
        return list(template.encode(dialogues))


def _cut(found: Dialogue, template: ChatTemplate, context: int) -> Encoded | None:
    """The longest beginning of a dialogue that fits and ends with an answer that counts."""
    for end in range(len(found.messages) - 1, found.learned, -1):
        if found.messages[end - 1].role == "assistant" and found.messages[end - 1].learned:
            (encoded,) = template.encode([(found.messages[:end], found.learned)])
            if len(encoded.tokens) <= context + 1:
                return encoded
    return None


def _check_all_learned(messages: Messages) -> None:
    if not all(message.learned for message in messages):
        allowed = "weights with method.sft.trainOn: assistant alone"
        remedy = "leave the weights out, or use trainOn: assistant"
        raise DataError(finding(found="a message of weight 0, and trainOn: all", allowed=allowed, remedy=remedy))


def _count(findings: Findings, encoded: Encoded) -> None:
    findings.tokens += len(encoded.tokens)
    findings.counted += int(encoded.counted.sum())
    findings.longest = max(findings.longest, len(encoded.tokens))
