"""From the records people keep to what methods learn from: dialogues, pairs of answers, prompts.

The form of a record is told by the fields it has, and is the same for all records of a source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kindling_api.errors import DataError
from kindling_api.v1alpha1.alignment_run import DialogueFormat
from kindling_trainer.align.data.forms import GIVEN, SYSTEMS, Fields, names_of
from kindling_trainer.align.data.messages import checked, fault, messages_of, said, short, text_of
from kindling_trainer.chat.message import Message, Messages


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


def dialogue(record: Fields, form: DialogueFormat) -> Dialogue | None:
    """What supervised fine-tuning learns from a record; None for an unpaired answer that is labelled bad.

    Of a pair, the chosen answer is learned.

    Raises:
        DataError: the record is no dialogue.
    """
    match form:
        case "messages":
            messages = _behind_system(record, messages_of(record["messages"], "messages"))
            return Dialogue(checked(messages, "messages"))
        case "shareGPT":
            turns = messages_of(record["conversations"], "conversations", ("from", "value"))
            return Dialogue(checked(_behind_system(record, turns), "conversations"))
        case "alpaca":
            return Dialogue(_alpaca(record))
        case "preference":
            both = pair(record, form)
            return Dialogue(both.prompt + both.chosen, learned=len(both.prompt))
        case "promptCompletion" | "unpaired":
            if form == "unpaired" and not _label(record):
                return None
            asked, answer = _asked(record, form), names_of(record, form)[1]
            assert answer is not None, "the form has one"
            return Dialogue(asked + checked(said(record[answer], "assistant", answer), answer), learned=len(asked))
        case "promptOnly":
            raise _unfit(form, "a dialogue with an answer to learn")


def pair(record: Fields, form: DialogueFormat) -> Pair:
    """The two answers of a record. Where nothing asks, the prompt is what both begin with, as in Anthropic's hh-rlhf.

    Raises:
        DataError: the record holds no such pair.
    """
    if form != "preference":
        raise _unfit(form, "two answers: chosen and rejected")
    chosen, rejected = (checked(said(record[field], "assistant", field), field) for field in ("chosen", "rejected"))
    if names_of(record, form)[0]:
        prompt = _asked(record, form)
        for repeated in (
            prompt,
            prompt[1:] if prompt[0].role == "system" else prompt,
        ):  # told twice, as in UltraFeedback
            if repeated and chosen[: len(repeated)] == rejected[: len(repeated)] == repeated:
                chosen, rejected = chosen[len(repeated) :], rejected[len(repeated) :]
                break
    else:
        common = _common_prefix(chosen, rejected)
        prompt = _behind_system(record, chosen[:common])
        chosen, rejected = chosen[common:], rejected[common:]
    for field, answer in (("chosen", chosen), ("rejected", rejected)):
        if any(message.role == "system" for message in answer):
            raise fault(
                f"a system message in {field}", "system messages in the prompt alone", f"move it out of {field}"
            )
        if not all(message.learned for message in answer):
            allowed = "answers of which every message is compared"
            raise fault(f"a message of weight 0 in {field}", allowed, "leave the weight out, or the record")
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
            messages = _asked(record, form)
        case _:
            whole = dialogue(record, form)
            messages = whole.messages if whole else ()
            while messages and messages[-1].role == "assistant":
                messages = messages[:-1]
    if not messages:
        raise fault("no prompt", "at least one message before the answer", "give the record a prompt")
    return Prompt(messages, record)


def _asked(record: Fields, form: DialogueFormat) -> Messages:
    """The messages before the answer: the system's, and what is asked together with what it is about."""
    field, _ = names_of(record, form)
    assert field is not None, "the form has one"
    given = [name for name in GIVEN if record.get(name)] if field != "prompt" else []
    if not given:
        return checked(_behind_system(record, said(record[field], "user", field)), field)
    about = "\n".join(text_of(record[name], name) for name in (field, *given))
    return _behind_system(record, (Message("user", about),))


def _alpaca(record: Fields) -> Messages:
    """The history's turns are learned too, as LLaMA-Factory does."""
    history = record.get("history") or ()
    if not all(isinstance(turn, Sequence) and len(turn) == 2 and not isinstance(turn, str) for turn in history):
        raise fault(f"history = {short(history)}", "pairs of an instruction and its answer", "correct the record")
    asked = text_of(record["instruction"], "instruction")
    if given := record.get("input"):
        asked = f"{asked}\n{text_of(given, 'input')}"
    turns = [*history, (asked, record["output"])]
    spoken: list[Message] = []
    for question, answer in turns:
        spoken += [Message("user", text_of(question, "history")), Message("assistant", text_of(answer, "output"))]
    return _behind_system(record, tuple(spoken))


def _behind_system(record: Fields, messages: Messages) -> Messages:
    """The messages behind the one that stands in a field of its own, unless it is told twice."""
    field = next((name for name in SYSTEMS if record.get(name)), None)
    if field is None:
        return messages
    system = Message("system", text_of(record[field], field))
    if messages[:1] == (system,):
        return messages
    if messages and messages[0].role == "system":
        remedy = f"leave one of them out: {field}, or the first message"
        raise fault(f"two system messages, one of them in {field}", "one system message", remedy)
    return (system, *messages)


def _label(record: Fields) -> bool:
    label = record["label"]
    if label in (True, False):
        return bool(label)
    raise fault(f"label {label!r}", "true or false", "say whether the completion is good")


def _common_prefix(one: Messages, other: Messages) -> int:
    """How many messages both begin with, the last of which is not the assistant's."""
    common = 0
    while common < min(len(one), len(other)) and one[common] == other[common]:
        common += 1
    while common and one[common - 1].role == "assistant":
        common -= 1
    return common


def _unfit(form: DialogueFormat, wanted: str) -> DataError:
    return fault(f"records of the form {form}", wanted, "give other data, or use another method")
