"""From the values of a record to messages, whatever people write them as.

Roles become `system`, `user` and `assistant`, and a text where a list of messages could stand is one message.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from kindling_api.errors import DataError, finding, near
from kindling_trainer.chat.message import Message, Messages, Role

_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
"""Names of the roles, ShareGPT's included."""

_REASONING = ("reasoning_content", "thinking", "reasoning")
"""Names of what a model thinks before it answers, transformers' first."""

_LEARNED = ("weight", "train", "training")
"""Names of what says whether a message is learned: OpenAI's weight of 0 or 1, and Axolotl's true or false."""

_UNSUPPORTED = ("tool_calls", "tool_call_id", "function_call", "images", "audio", "video")
"""Fields of a message that change what it says, and that no message here has."""

_READ = frozenset({"role", "from", "content", "value", *_REASONING, *_LEARNED, *_UNSUPPORTED})

_TURN = re.compile(r"\n\n(Human|Assistant):")
"""How a dialogue is written into one string in Anthropic's hh-rlhf (Bai et al. 2022, arXiv:2204.05862)."""


def said(value: Any, speaker: Role, field: str) -> Messages:
    """Messages as they are, a dialogue in one string cut into its turns, or a string as what `speaker` says.

    Raises:
        DataError: they are neither.
    """
    if not isinstance(value, str):
        return messages_of(value, field)
    if not _TURN.match(value):
        return (Message(speaker, text_of(value, field)),)
    _, *turns = _TURN.split(value)
    return tuple(
        Message("user" if name == "Human" else "assistant", text.strip())
        for name, text in zip(turns[::2], turns[1::2], strict=True)
    )


def messages_of(value: Any, field: str, names: tuple[str, str] = ("role", "content")) -> Messages:
    """A list of messages.

    Args:
        names: of the fields that say who speaks, and what.

    Raises:
        DataError: it is none, or one of them is wrong.
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        allowed = f"a list of messages, each with {names[0]} and {names[1]}"
        raise fault(f"{field} = {short(value)}", allowed, "correct the record")
    return tuple(_message(item, field, *names) for item in value)


def checked(messages: Messages, field: str) -> Messages:
    """Messages of which only the first may be the system's.

    Raises:
        DataError: another one is.
    """
    if any(message.role == "system" for message in messages[1:]):
        allowed = "a system message at the beginning alone"
        raise fault(f"a system message in the middle of {field}", allowed, "move it to the beginning")
    return messages


def unread_of(value: Any) -> set[str]:
    """The names of what the messages of a list have, and nothing reads."""
    items = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
    return {name for item in items if isinstance(item, Mapping) for name in item if item[name] is not None} - _READ


def text_of(value: Any, field: str) -> str:
    """A text, or what a list of texts in OpenAI's form says one after the other.

    Raises:
        DataError: it is none.
    """
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        return "".join(_part(part, field) for part in value)
    if not isinstance(value, str):
        raise fault(f"{short(value)} as {field}", "a text", "correct the record")
    # JSON can spell lone surrogates (`"\ud800"`), which no encoding can carry further
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def short(value: Any) -> str:
    """A value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def fault(found: str, allowed: str, remedy: str) -> DataError:
    """The error for a record; where it stands, the reader says."""
    return DataError(finding(found=found, allowed=allowed, remedy=remedy))


def _message(item: Any, field: str, role_field: str, content_field: str) -> Message:
    if not isinstance(item, Mapping) or role_field not in item or content_field not in item:
        allowed = f"messages with {role_field} and {content_field}"
        raise fault(f"{short(item)} in {field}", allowed, "correct the record")
    role = item[role_field]
    if role not in _ROLES:
        meant = near(str(role), _ROLES)
        remedy = f"did you mean `{meant}`?" if meant else "leave such messages out, or tell them as the user's"
        raise fault(f"the role {role!r} in {field}", "system, user or assistant", remedy)
    if unsupported := next((name for name in _UNSUPPORTED if item.get(name)), None):
        remedy = "leave such records out, or write what it says into the content"
        raise fault(f"{unsupported} in a message of {field}", "messages of text alone", remedy)
    thought = next((item[name] for name in _REASONING if item.get(name) is not None), None)
    reasoning = None if thought is None else text_of(thought, f"the reasoning of {field}")
    content = text_of(item[content_field], f"the content of {field}")
    return Message(_ROLES[role], content, reasoning, _is_learned(item, field))


def _is_learned(item: Mapping[str, Any], field: str) -> bool:
    given = {name: item[name] for name in _LEARNED if item.get(name) is not None}
    for name, value in given.items():
        if value not in (0, 1):
            remedy = "use 0 for what is not to be learned, and 1 for what is"
            raise fault(f"{name} {short(value)} in a message of {field}", "0 or 1, or false or true", remedy)
    return all(given.values())


def _part(part: Any, field: str) -> str:
    if isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return text_of(part["text"], field)
    raise fault(f"{short(part)} as a part of {field}", "parts with type text and a text", "leave other parts out")
