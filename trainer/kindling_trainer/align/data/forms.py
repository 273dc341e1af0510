"""Which form a record has, as its fields tell, and which of its fields that form reads.

Nothing that changes what a record says is passed over: such a field is read, or refused by its name. Other fields, such
as `id` or `source`, are told once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from kindling_api.errors import DataError
from kindling_api.v1alpha1.alignment_run import DialogueFormat
from kindling_trainer.align.data.messages import fault, short, unread_of

Fields = Mapping[str, Any]
"""One record, as it is in the file."""

QUESTIONS = ("prompt", "question", "instruction")
"""Names of what is asked."""
ANSWERS = ("completion", "answer", "response", "output")
"""Names of what is answered to it."""
GIVEN = ("input", "context")
"""Names of what a question or an instruction is about, Alpaca's and Dolly's; a prompt has it in itself."""
SYSTEMS = ("system", "system_prompt")
"""Names of the system message beside the others."""

_FIELDS: tuple[tuple[DialogueFormat, tuple[str, ...]], ...] = (
    ("preference", ("chosen", "rejected")),
    ("messages", ("messages",)),
    ("shareGPT", ("conversations",)),
    ("unpaired", ("prompt", "completion", "label")),
    ("promptCompletion", ("prompt", "completion")),
    ("promptCompletion", ("prompt", "response")),
    ("promptCompletion", ("question", "answer")),  # as GSM8K has it
    ("promptCompletion", ("question", "response")),  # as OpenOrca has it
    ("alpaca", ("instruction", "output")),
    ("promptCompletion", ("instruction", "response")),  # as Dolly has it
    ("promptOnly", ("prompt",)),
    ("promptOnly", ("question",)),
    ("promptOnly", ("instruction",)),
)
"""The fields that tell each form, those with more first."""

_MEANING = frozenset({*SYSTEMS, *GIVEN, "tools", "functions", "documents", "history", "weight", "train"})
"""Fields that add to what a record says, in whatever form."""

_OF_PROMPTS = frozenset({"tools", "functions"})
"""Those of which a prompt is told nothing; the others may be for a reward, which gets the whole record."""

_LISTS = ("messages", "conversations", *QUESTIONS, *ANSWERS, "chosen", "rejected")


def detect(record: Fields) -> DialogueFormat:
    """The form that a record's fields tell.

    Raises:
        DataError: no form has these fields.
    """
    if form := _form(record):
        return form
    remedy = "rename the fields, or set the source's format"
    for name, value in record.items():
        if isinstance(value, Mapping) and (inner := _form(value)):
            remedy = f"lift the fields of {name}, which are those of {inner}, into the record itself"
    raise fault(f"the fields {', '.join(record) or 'none'}", _forms(), remedy)


def check_form(record: Fields, form: DialogueFormat) -> None:
    """Refuse a record that has not the fields of `form`.

    Raises:
        DataError: some of them are missing.
    """
    if not any(all(field in record for field in fields) for name, fields in _FIELDS if name == form):
        allowed = f"the fields of {form}, as in the first record: {_fields_of(form)}"
        remedy = "put records of another form into a file of their own"
        raise fault(f"the fields {', '.join(record) or 'none'}", allowed, remedy)


def unread(record: Fields, form: DialogueFormat) -> set[str]:
    """The names of the fields that are not read, those of messages among them.

    Raises:
        DataError: one of them would change what the record says.
    """
    read = read_fields(record, form)
    for name in sorted(_MEANING & (set(record) - read)):
        if record[name] and not (name in ("weight", "train") and record[name] == 1):
            raise _meaning(name, record, f"beside the fields of {form}, {', '.join(_added(form))} alone")
    others = {name for name in set(record) - read if record[name] not in (None, "", [], {})}
    return (others - _MEANING).union(*(unread_of(record[name]) for name in _LISTS if name in read))


def check_prompt(record: Fields) -> None:
    """Refuse what would change a prompt and is not read.

    Raises:
        DataError: there is such a field.
    """
    for name in sorted(_OF_PROMPTS & set(record)):
        if record[name]:
            raise _meaning(name, record, "prompts of text alone")


def read_fields(record: Fields, form: DialogueFormat) -> set[str]:
    """The fields of a record that are read in a form."""
    match form:
        case "messages":
            names = {"messages"}
        case "shareGPT":
            names = {"conversations"}
        case "alpaca":
            names = {"instruction", "input", "output", "history"}
        case _:
            question, answer = names_of(record, form)
            names = {name for name in (question, answer) if name}
            names |= set(GIVEN) if question not in (None, "prompt") else set()
            names |= {"chosen", "rejected"} if form == "preference" else set()
            names |= {"label"} if form == "unpaired" else set()
    return names | set(SYSTEMS)


def names_of(record: Fields, form: DialogueFormat) -> tuple[str | None, str | None]:
    """The names of the fields that ask and that answer, where the form has such."""
    if form in ("promptCompletion", "unpaired"):
        asks, answers, *_ = next(fields for name, fields in _FIELDS if name == form and set(fields) <= set(record))
        return asks, answers
    return next((name for name in QUESTIONS if name in record), None), None


def _form(record: Fields) -> DialogueFormat | None:
    return next((form for form, fields in _FIELDS if all(field in record for field in fields)), None)


def _meaning(name: str, record: Fields, allowed: str) -> DataError:
    remedy = "leave such records out, or write what it says into the other fields"
    return fault(f"{name} = {short(record[name])}", allowed, remedy)


def _added(form: DialogueFormat) -> list[str]:
    return [*SYSTEMS, *{"alpaca": ["input", "history"], "messages": [], "shareGPT": []}.get(form, [*GIVEN])]


def _forms() -> str:
    return "the fields of one form: " + "; ".join(f"{form} ({_fields_of(form)})" for form in get_args(DialogueFormat))


def _fields_of(form: DialogueFormat) -> str:
    return " or ".join(", ".join(fields) for name, fields in _FIELDS if name == form)
