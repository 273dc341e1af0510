"""The dry run: what is dead in the data, told before anything heavy starts. Torch-free, and seconds long.

A record from which nothing can be learned is left out, and counted. Where too many are, the run is refused: something
is wrong with the data as a whole, or with how it is read, and training on the rest would look healthy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, get_args

from kindling_api.errors import DataError, SpecError, explain, finding
from kindling_api.v1alpha1.alignment_run import DialogueFormat
from kindling_trainer.chat.message import Messages
from kindling_trainer.chat.template import ChatTemplate

Fault = Literal["unanswered", "unprompted", "empty", "equal", "long"]
"""Why a record is dead: nobody answers, or asks; an answer is empty, both answers are the same, or it does not fit."""

_SENTENCES: dict[Fault, str] = {
    "unanswered": "hold no answer of the assistant, so that no token would count",
    "unprompted": "hold a pair of answers to an empty prompt",
    "empty": "have an answer without text",
    "equal": "have a chosen answer that is the rejected one",
    "long": "do not fit into the context",
}
_MOST: dict[Fault, float] = {"unanswered": 0.05, "unprompted": 0.05, "empty": 0.05, "equal": 0.05, "long": 0.5}
"""The largest part of the records that may be left out for each fault."""

_REMEDIES: dict[Fault, str] = {
    "unanswered": "check the roles: the assistant's must be `assistant`, or `gpt` in ShareGPT's form",
    "unprompted": "take these records out, or check which field holds the prompt: prompt, question or instruction",
    "empty": "take these records out, or check which field holds the answer",
    "equal": "take these records out, or check how the pairs were made",
    "long": "shorten the records, use a larger training.context, or start from a model with a larger one",
}


@dataclass
class Findings:
    """What was found in the data."""

    forms: list[DialogueFormat] = field(default_factory=list)
    """The form of each source's records."""
    readable: int = 0
    """Records that could be read."""
    unreadable: list[DataError] = field(default_factory=list)
    """What is wrong with each of the others."""
    unwanted: int = 0
    """Records that are labelled bad, from which this method does not learn."""
    skipped: dict[Fault, list[str]] = field(default_factory=dict)
    """Where the dead records are, by fault."""
    unread: set[str] = field(default_factory=set)
    """Names of fields that nothing reads, since they change nothing that is said."""
    cut: int = 0
    """Dialogues of which the last turns are left out, since they do not fit."""
    tokens: int = 0
    """In all sequences that are kept."""
    counted: int = 0
    """Tokens that the model is trained to say."""
    lengths: list[int] = field(default_factory=list)
    """Tokens of each record that is kept: of a dialogue or a prompt, or of both answers of a pair, each after its
    prompt."""
    longest: int = 0
    """Tokens of the longest sequence."""
    tokenized: bool = True
    """Whether the tokens are those of the base's tokenizer, and not of one in its place."""

    @property
    def records(self) -> int:
        """All records, readable or not."""
        return self.readable + len(self.unreadable)

    @property
    def kept(self) -> int:
        """Records that are learned from."""
        return self.readable - self.unwanted - sum(map(len, self.skipped.values()))

    def skip(self, fault: Fault, place: str) -> None:
        """Note a dead record."""
        self.skipped.setdefault(fault, []).append(place)

    def sentences(self) -> list[str]:
        """What is left out, for people; nothing where all is well."""
        said = [
            f"{len(places):,} of {self.records:,} records {_SENTENCES[fault]}" for fault, places in self.skipped.items()
        ]
        if self.unreadable:
            said.append(f"{len(self.unreadable):,} of {self.records:,} records cannot be read: {self.unreadable[0]}")
        if self.unread:
            said.append(f"not read of the records: {_some(sorted(self.unread), most=8)}")
        if self.cut:
            said.append(f"{self.cut:,} dialogues are cut after the last answer that fits into the context")
        return said


def check_findings(findings: Findings, *, where: str = "spec.data") -> None:
    """Refuse data of which too much is dead.

    Raises:
        DataError: for one fault, too many records are dead; or none is left.
    """
    for fault in get_args(Fault):
        places = findings.skipped.get(fault, [])
        if len(places) > _MOST[fault] * findings.records:
            found = f"{len(places):,} of {findings.records:,} records that {_SENTENCES[fault]} ({_some(places)})"
            allowed = f"at most {_MOST[fault]:.0%} of such records"
            raise DataError(explain(where, found=found, allowed=allowed, remedy=_REMEDIES[fault]))
    if not findings.kept:
        found = "; ".join(findings.sentences()) or f"{findings.records:,} records, none of which is to be learned"
        raise DataError(explain(where, found=found, allowed="something to learn from", remedy="give other data"))


def check_template(template: ChatTemplate) -> int:
    """The token that ends what the model says, which it must learn to say.

    Raises:
        SpecError: the template gives it none, or is wrong.
    """
    stop = template.stop_token()
    if stop is None:
        raise SpecError(
            explain(
                "spec.chatTemplate",
                found="no special token at the end of what the assistant says",
                allowed="a template in which each of the assistant's messages ends with one, such as <|end|>",
                remedy="put it there, within the generation block: the model would otherwise never learn to stop",
            )
        )
    return stop


def check_characters(template: ChatTemplate, texts: Iterable[str]) -> None:
    """Refuse texts with a character that the tokenizer would leave out without a word.

    Raises:
        DataError: there is one.
    """
    for character in sorted(set().union(*texts)):
        if not template.knows(character):
            found = f"the character {character!r} (U+{ord(character):04X}), for which there is no token"
            remedy = "leave it out, or start from a model whose tokenizer falls back to bytes"
            allowed = "texts that the base's tokenizer has tokens for"
            raise DataError(finding(found=found, allowed=allowed, remedy=remedy))


def answer_fault(messages: Messages) -> Fault | None:
    """What is wrong with messages that are to be learned: nobody answers in them, or an answer is empty."""
    said = [message.content for message in messages if message.role == "assistant" and message.learned]
    if not said:
        return "unanswered"
    return "empty" if not all(content.strip() for content in said) else None


def prompt_fault(prompt: Messages) -> Fault | None:
    """What is wrong with the prompt of a pair: nobody asks anything in it."""
    return None if any(message.content.strip() for message in prompt if message.role != "system") else "unprompted"


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
