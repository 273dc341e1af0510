"""From the records people keep to what methods learn from: dialogues, pairs of answers, prompts.

The form of a record is told by the fields it has, and is the same for all records of a source. Whatever the form, roles
become `system`, `user` and `assistant`, and a text where a list of messages could stand is one message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from kindling_api.errors import DataError, finding, near
from kindling_api.v1alpha1.alignment_run import DialogueFormat

Role = Literal["system", "user", "assistant"]
Fields = Mapping[str, Any]
"""One record, as it is in the file."""


class Message(NamedTuple):
    """What one of the speakers says."""

    role: Role
    content: str


Messages = tuple[Message, ...]


@dataclass(frozen=True)
class Dialogue:
    """Messages in their order; what is learned is what the assistant says from `learned` on."""

    messages: Messages
    learned: int = 0
    """The first message that counts; those before it are the prompt."""


@dataclass(frozen=True)
class Pair:
    """Two ways to go on after a prompt, of which people prefer the first."""

    prompt: Messages
    chosen: Messages
    rejected: Messages


@dataclass(frozen=True)
class Prompt:
    """What the model is to answer, and the record it stands in, with all that a reward needs to know."""

    messages: Messages
    record: Fields


def detect(record: Fields) -> DialogueFormat:
    """The form that a record's fields tell.

    Raises:
        DataError: no form has these fields.
    """
    for form, fields in _FIELDS:
        if all(field in record for field in fields):
            return form
    raise _fault(f"the fields {', '.join(record) or 'none'}", _forms(), "rename the fields, or set the source's format")


def check_form(record: Fields, form: DialogueFormat) -> None:
    """Refuse a record that has not the fields of `form`.

    Raises:
        DataError: some of them are missing.
    """
    if not any(all(field in record for field in fields) for name, fields in _FIELDS if name == form):
        allowed = f"the fields of {form}, as in the first record: {_fields_of(form)}"
        raise _fault(
            f"the fields {', '.join(record) or 'none'}", allowed, "put records of another form into a file of their own"
        )


def dialogue(record: Fields, form: DialogueFormat) -> Dialogue | None:
    """What supervised fine-tuning learns from a record; None for an unpaired answer that is labelled bad.

    Of a pair, the chosen answer is learned.

    Raises:
        DataError: the record is no dialogue.
    """
    match form:
        case "messages":
            return Dialogue(_messages(record["messages"], "messages"))
        case "shareGPT":
            return Dialogue(_share_gpt(record))
        case "alpaca":
            return Dialogue(_alpaca(record))
        case "preference":
            both = pair(record, form)
            return Dialogue(both.prompt + both.chosen, learned=len(both.prompt))
        case "promptCompletion" | "unpaired":
            if form == "unpaired" and not _label(record):
                return None
            asked = _asked(record)
            return Dialogue(asked + _answer(record), learned=len(asked))
        case "promptOnly":
            raise _unfit(form, "a dialogue with an answer to learn")


def pair(record: Fields, form: DialogueFormat) -> Pair:
    """The two answers of a record. Without a `prompt`, it is what both begin with, as in Anthropic's hh-rlhf.

    Raises:
        DataError: the record holds no such pair.
    """
    if form != "preference":
        raise _unfit(form, "two answers: chosen and rejected")
    if "prompt" in record:
        prompt = _said(record["prompt"], "user", "prompt")
        chosen, rejected = (_said(record[field], "assistant", field) for field in ("chosen", "rejected"))
        if chosen[: len(prompt)] == prompt and rejected[: len(prompt)] == prompt:  # told twice, as in UltraFeedback
            chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    else:
        both = [_said(record[field], "assistant", field) for field in ("chosen", "rejected")]
        common = _common_prefix(*both)
        prompt, chosen, rejected = both[0][:common], both[0][common:], both[1][common:]
    for field, answer in (("chosen", chosen), ("rejected", rejected)):
        if any(message.role == "system" for message in answer):
            raise _fault(
                f"a system message in {field}", "system messages in the prompt alone", f"move it out of {field}"
            )
    return Pair(prompt, chosen, rejected)


def prompt(record: Fields, form: DialogueFormat) -> Prompt:
    """What the model is to answer: the record's prompt, or its dialogue up to the last thing the assistant says.

    Raises:
        DataError: the record holds no prompt.
    """
    match form:
        case "preference":
            messages = pair(record, form).prompt
        case "promptOnly" | "promptCompletion" | "unpaired":
            messages = _asked(record)
        case _:
            whole = dialogue(record, form)
            messages = whole.messages if whole else ()
            while messages and messages[-1].role == "assistant":
                messages = messages[:-1]
    if not messages:
        raise _fault("no prompt", "at least one message before the answer", "give the record a prompt")
    return Prompt(messages, record)


_FIELDS: tuple[tuple[DialogueFormat, tuple[str, ...]], ...] = (
    ("preference", ("chosen", "rejected")),
    ("messages", ("messages",)),
    ("shareGPT", ("conversations",)),
    ("unpaired", ("prompt", "completion", "label")),
    ("promptCompletion", ("prompt", "completion")),
    ("promptCompletion", ("question", "answer")),  # as GSM8K has it
    ("alpaca", ("instruction", "output")),
    ("promptOnly", ("prompt",)),
    ("promptOnly", ("question",)),
)
"""The fields that tell each form, those with more first."""

_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
"""Names of the roles, ShareGPT's included."""

_TURN = re.compile(r"\n\n(Human|Assistant):")
"""How a dialogue is written into one string in Anthropic's hh-rlhf (Bai et al. 2022, arXiv:2204.05862)."""


def _forms() -> str:
    return "the fields of one form: " + "; ".join(f"{form} ({_fields_of(form)})" for form in get_args(DialogueFormat))


def _fields_of(form: DialogueFormat) -> str:
    return " or ".join(", ".join(fields) for name, fields in _FIELDS if name == form)


def _asked(record: Fields) -> Messages:
    field = "prompt" if "prompt" in record else "question"
    return _said(record[field], "user", field)


def _answer(record: Fields) -> Messages:
    field = "completion" if "completion" in record else "answer"
    return _said(record[field], "assistant", field)


def _label(record: Fields) -> bool:
    label = record["label"]
    if label in (True, False):
        return bool(label)
    raise _fault(f"label {label!r}", "true or false", "say whether the completion is good")


def _said(value: Any, speaker: Role, field: str) -> Messages:
    """Messages as they are, a dialogue in one string cut into its turns, or a string as what `speaker` says."""
    if not isinstance(value, str):
        return _messages(value, field)
    if not _TURN.match(value):
        return (Message(speaker, _text(value, field)),)
    _, *turns = _TURN.split(value)
    return tuple(
        Message("user" if name == "Human" else "assistant", text.strip())
        for name, text in zip(turns[::2], turns[1::2], strict=True)
    )


def _messages(value: Any, field: str) -> Messages:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise _fault(
            f"{field} = {_short(value)}", "a list of messages, each with role and content", "correct the record"
        )
    return _checked(tuple(_message(item, field, "role", "content") for item in value), field)


def _message(item: Any, field: str, role_field: str, content_field: str) -> Message:
    if not isinstance(item, Mapping) or role_field not in item or content_field not in item:
        allowed = f"messages with {role_field} and {content_field}"
        raise _fault(f"{_short(item)} in {field}", allowed, "correct the record")
    role = item[role_field]
    if role not in _ROLES:
        meant = near(str(role), _ROLES)
        remedy = f"did you mean `{meant}`?" if meant else "leave such messages out, or tell them as the user's"
        raise _fault(f"the role {role!r} in {field}", "system, user or assistant", remedy)
    return Message(_ROLES[role], _text(item[content_field], f"the content of {field}"))


def _checked(messages: Messages, field: str) -> Messages:
    """Messages of which only the first may be the system's."""
    if any(message.role == "system" for message in messages[1:]):
        allowed = "a system message at the beginning alone"
        raise _fault(f"a system message in the middle of {field}", allowed, "move it to the beginning")
    return messages


def _share_gpt(record: Fields) -> Messages:
    turns = record["conversations"]
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        raise _fault(
            f"conversations = {_short(turns)}", "a list of turns, each with from and value", "correct the record"
        )
    messages = tuple(_message(turn, "conversations", "from", "value") for turn in turns)
    return _checked(_system(record) + messages, "conversations")


def _alpaca(record: Fields) -> Messages:
    """The history's turns are learned too, as LLaMA-Factory does."""
    history = record.get("history") or ()
    if not all(isinstance(turn, Sequence) and len(turn) == 2 and not isinstance(turn, str) for turn in history):
        raise _fault(f"history = {_short(history)}", "pairs of an instruction and its answer", "correct the record")
    asked = _text(record["instruction"], "instruction")
    if given := record.get("input"):
        asked = f"{asked}\n{_text(given, 'input')}"
    turns = [*history, (asked, record["output"])]
    said: list[Message] = []
    for question, answer in turns:
        said += [Message("user", _text(question, "history")), Message("assistant", _text(answer, "output"))]
    return _system(record) + tuple(said)


def _system(record: Fields) -> Messages:
    text = record.get("system")
    return (Message("system", _text(text, "system")),) if text else ()


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise _fault(f"{_short(value)} as {field}", "a text", "correct the record")
    # JSON can spell lone surrogates (`"\ud800"`), which no encoding can carry further
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _common_prefix(one: Messages, other: Messages) -> int:
    """How many messages both begin with, the last of which is not the assistant's."""
    common = 0
    while common < min(len(one), len(other)) and one[common] == other[common]:
        common += 1
    while common and one[common - 1].role == "assistant":
        common -= 1
    return common


def _unfit(form: DialogueFormat, wanted: str) -> DataError:
    return _fault(f"records of the form {form}", wanted, "give other data, or use another method")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _fault(found: str, allowed: str, remedy: str) -> DataError:
    """The error for a record; where it stands, the reader says."""
    return DataError(finding(found=found, allowed=allowed, remedy=remedy))
