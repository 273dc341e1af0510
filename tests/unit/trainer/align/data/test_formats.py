"""Every form of record becomes the same dialogue, pair or prompt, and a record that is none is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from kindling_api.errors import DataError
from kindling_trainer.align.data.formats import Dialogue, Pair, dialogue, pair, prompt
from kindling_trainer.align.data.forms import check_form, check_prompt, detect, unread
from kindling_trainer.chat.message import Message

ASKED, SAID = Message("user", "Two and three?"), Message("assistant", "Five.")
MORE, MORE_SAID = Message("user", "Sure?"), Message("assistant", "Yes.")
SYSTEM = Message("system", "Be brief.")

DIALOGUES: dict[str, tuple[dict[str, Any], str, Dialogue]] = {
    "messages": (
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Two and three?"},
                      {"role": "assistant", "content": "Five."}], "source": "x"},
        "messages", Dialogue((SYSTEM, ASKED, SAID)),
    ),
    "shareGPT": (
        {"conversations": [{"from": "human", "value": "Two and three?"}, {"from": "gpt", "value": "Five."}],
         "system": "Be brief."},
        "shareGPT", Dialogue((SYSTEM, ASKED, SAID)),
    ),
    "alpaca": (
        {"instruction": "Sure?", "input": "", "output": "Yes.", "history": [["Two and three?", "Five."]]},
        "alpaca", Dialogue((ASKED, SAID, MORE, MORE_SAID)),
    ),
    "alpaca with input": (
        {"instruction": "Two and", "input": "three?", "output": "Five."},
        "alpaca", Dialogue((Message("user", "Two and\nthree?"), SAID)),
    ),
    "strings": (
        {"prompt": "Two and three?", "completion": "Five."}, "promptCompletion", Dialogue((ASKED, SAID), learned=1),
    ),
    "lists": (
        {"prompt": [{"role": "user", "content": "Two and three?"}],
         "completion": [{"role": "assistant", "content": "Five."}]},
        "promptCompletion", Dialogue((ASKED, SAID), learned=1),
    ),
    "gsm8k": (
        {"question": "Two and three?", "answer": "Five."}, "promptCompletion", Dialogue((ASKED, SAID), learned=1),
    ),
    "orca": (
        {"system_prompt": "Be brief.", "question": "Two and three?", "response": "Five."},
        "promptCompletion", Dialogue((SYSTEM, ASKED, SAID), learned=2),
    ),
    "dolly": (
        {"instruction": "Two and", "context": "three?", "response": "Five.", "category": "sums"},
        "promptCompletion", Dialogue((Message("user", "Two and\nthree?"), SAID), learned=1),
    ),
    "prompt and response": (
        {"prompt": "Two and three?", "response": "Five."}, "promptCompletion", Dialogue((ASKED, SAID), learned=1),
    ),
    "an answer among others": (
        {"question": "Two and three?", "answer": "Five.", "completion": "no"},
        "promptCompletion", Dialogue((ASKED, SAID), learned=1),
    ),
    "system beside messages": (
        {"system": "Be brief.", "messages": [{"role": "user", "content": "Two and three?"},
                                             {"role": "assistant", "content": "Five."}]},
        "messages", Dialogue((SYSTEM, ASKED, SAID)),
    ),
    "system told twice": (
        {"system": "Be brief.", "prompt": [{"role": "system", "content": "Be brief."},
                                           {"role": "user", "content": "Two and three?"}], "completion": "Five."},
        "promptCompletion", Dialogue((SYSTEM, ASKED, SAID), learned=2),
    ),
    "weights": (
        {"messages": [{"role": "user", "content": "Two and three?"},
                      {"role": "assistant", "content": "Six.", "weight": 0},
                      {"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes.", "weight": 1}]},
        "messages", Dialogue((ASKED, Message("assistant", "Six.", learned=False), MORE, MORE_SAID)),
    ),
    "train": (
        {"conversations": [{"from": "human", "value": "Two and three?"},
                           {"from": "gpt", "value": "Five.", "train": False}]},
        "shareGPT", Dialogue((ASKED, SAID._replace(learned=False))),
    ),
    "parts": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Two and "},
                                                   {"type": "text", "text": "three?"}]},
                      {"role": "assistant", "content": "Five.", "tool_calls": None}]},
        "messages", Dialogue((ASKED, SAID)),
    ),
    "good": (
        {"prompt": "Two and three?", "completion": "Five.", "label": True}, "unpaired", Dialogue((ASKED, SAID), 1),
    ),
    "chosen": (
        {"prompt": "Two and three?", "chosen": "Five.", "rejected": "Six."}, "preference", Dialogue((ASKED, SAID), 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("record", "form", "expected"), DIALOGUES.values(), ids=DIALOGUES)
def test_records_become_dialogues(record: dict[str, Any], form: str, expected: Dialogue) -> None:
    assert detect(record) == form
    assert dialogue(record, detect(record)) == expected


def test_an_answer_that_is_labelled_bad_is_not_learned() -> None:
    record = {"prompt": "Two and three?", "completion": "Six.", "label": False}
    assert dialogue(record, detect(record)) is None


SIX = Message("assistant", "Six.")
PAIRS: dict[str, tuple[dict[str, Any], Pair]] = {
    "explicit": (
        {"prompt": "Two and three?", "chosen": "Five.", "rejected": "Six."}, Pair((ASKED,), (SAID,), (SIX,)),
    ),
    "prompt told twice": (
        {
            "prompt": "Two and three?",
            "chosen": [{"role": "user", "content": "Two and three?"}, {"role": "assistant", "content": "Five."}],
            "rejected": [{"role": "user", "content": "Two and three?"}, {"role": "assistant", "content": "Six."}],
        },
        Pair((ASKED,), (SAID,), (SIX,)),
    ),
    "question with a system message": (
        {"system": "Be brief.", "question": "Two and three?", "chosen": "Five.", "rejected": "Six."},
        Pair((SYSTEM, ASKED), (SAID,), (SIX,)),
    ),
    "instruction and input": (
        {"instruction": "Two and", "input": "three?", "chosen": "Five.", "rejected": "Six."},
        Pair((Message("user", "Two and\nthree?"),), (SAID,), (SIX,)),
    ),
    "prompt told twice, and the system message once": (
        {
            "system": "Be brief.",
            "prompt": "Two and three?",
            "chosen": [{"role": "user", "content": "Two and three?"}, {"role": "assistant", "content": "Five."}],
            "rejected": [{"role": "user", "content": "Two and three?"}, {"role": "assistant", "content": "Six."}],
        },
        Pair((SYSTEM, ASKED), (SAID,), (SIX,)),
    ),
    "implicit": (
        {
            "chosen": [{"role": "user", "content": "Two and three?"}, {"role": "assistant", "content": "Five."}],
            "rejected": [{"role": "user", "content": "Two and three?"}, {"role": "assistant", "content": "Six."}],
        },
        Pair((ASKED,), (SAID,), (SIX,)),
    ),
    "one string, as in hh-rlhf": (
        {
            "chosen": "\n\nHuman: Two and three?\n\nAssistant: Five.\n\nHuman: Sure?\n\nAssistant: Yes.",
            "rejected": "\n\nHuman: Two and three?\n\nAssistant: Five.\n\nHuman: Sure?\n\nAssistant: No.",
        },
        Pair((ASKED, SAID, MORE), (MORE_SAID,), (Message("assistant", "No."),)),
    ),
    "equal answers still have a prompt": (
        {
            "chosen": [{"role": "user", "content": "Two and three?"}, {"role": "assistant", "content": "Five."}],
            "rejected": [{"role": "user", "content": "Two and three?"}, {"role": "assistant", "content": "Five."}],
        },
        Pair((ASKED,), (SAID,), (SAID,)),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("record", "expected"), PAIRS.values(), ids=PAIRS)
def test_records_become_pairs(record: dict[str, Any], expected: Pair) -> None:
    assert detect(record) == "preference"
    assert pair(record, "preference") == expected


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Two and three?", "answer": "5"},
        {"question": "Two and three?", "answer": "5"},
        {"messages": [{"role": "user", "content": "Two and three?"}, {"role": "assistant", "content": "Five."}]},
        {"prompt": "Two and three?", "chosen": "Five.", "rejected": "Six."},
        {"instruction": "Two and three?", "output": "Five."},
    ],
)
def test_records_become_prompts_and_rewards_see_all_of_them(record: dict[str, Any]) -> None:
    found = prompt(record, detect(record))
    assert found.messages == (ASKED,)
    assert found.record == record


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no form": ({"text": "x", "id": 1}, "found the fields text, id; allowed: the fields of one form: messages ("),
    "nested": (
        {"id": 1, "data": {"prompt": "x", "completion": "y"}},
        "To fix it: lift the fields of data, which are those of promptCompletion, into the record itself.",
    ),
    "two systems": (
        {"system": "a", "messages": [{"role": "system", "content": "b"}]},
        "found two system messages, one of them in system; allowed: one system message.",
    ),
    "weight": (
        {"messages": [{"role": "assistant", "content": "x", "weight": 0.5}]},
        "found weight 0.5 in a message of messages; allowed: 0 or 1, or false or true.",
    ),
    "tool calls": (
        {"messages": [{"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}]},
        "found tool_calls in a message of messages; allowed: messages of text alone.",
    ),
    "image": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
        "as a part of the content of messages; allowed: parts with type text and a text",
    ),
    "passages": ({"question": "x", "context": {"title": "a"}, "answer": "y"}, "{'title': 'a'} as context; allowed: "),
    "weighed pair": (
        {"prompt": "x", "chosen": [{"role": "assistant", "content": "y", "weight": 0}], "rejected": "z"},
        "found a message of weight 0 in chosen; allowed: answers of which every message is compared.",
    ),
    "role": (
        {"messages": [{"role": "assistent", "content": "x"}]},
        "the role 'assistent' in messages; allowed: system, user or assistant. To fix it: did you mean `assistant`?",
    ),
    "tool": ({"messages": [{"role": "observation", "content": "x"}]}, "found the role 'observation' in messages"),
    "content": ({"messages": [{"role": "user", "content": None}]}, "None as the content of messages; allowed: a text"),
    "empty list": ({"messages": []}, "found messages = []; allowed: a list of messages, each with role and content"),
    "turn": ({"conversations": [{"role": "user", "content": "x"}]}, "allowed: messages with from and value"),
    "late system": (
        {"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}]},
        "found a system message in the middle of messages; allowed: a system message at the beginning alone",
    ),
    "label": ({"prompt": "x", "completion": "y", "label": "good"}, "found label 'good'; allowed: true or false"),
    "number": ({"prompt": 5, "completion": "y"}, "found prompt = 5; allowed: a list of messages"),
}  # fmt: skip


@pytest.mark.parametrize(("record", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_record_is_refused_by_name(record: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        dialogue(record, detect(record))
    assert message in str(caught.value)


def test_a_record_of_another_form_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        check_form({"prompt": "x", "completion": "y"}, "messages")
    assert str(caught.value) == (
        "found the fields prompt, completion; allowed: the fields of messages, as in the first record: messages. "
        "To fix it: put records of another form into a file of their own."
    )


UNREAD: dict[str, tuple[dict[str, Any], set[str]]] = {
    "none": ({"question": "x", "context": "y", "answer": "z"}, set()),
    "what changes nothing": ({"prompt": "x", "completion": "y", "id": 1, "tag": "z", "note": None}, {"id", "tag"}),
    "what says the same": (
        {"prompt": "x", "chosen": "y", "rejected": "z", "messages": [], "score": 0.5}, {"score"},
    ),
    "of a message": ({"messages": [{"role": "user", "content": "x", "name": "Jo", "weight": 1}]}, {"name"}),
}  # fmt: skip


@pytest.mark.parametrize(("record", "names"), UNREAD.values(), ids=UNREAD)
def test_fields_that_are_not_read_are_told(record: dict[str, Any], names: set[str]) -> None:
    assert unread(record, detect(record)) == names


MEANING: dict[str, tuple[dict[str, Any], str]] = {
    "tools": ({"messages": [], "tools": [{"name": "f"}]}, "found tools = [{'name': 'f'}]; allowed: beside the fields"),
    "context of a prompt": ({"prompt": "x", "context": "y", "completion": "z"}, "found context = 'y'; allowed: "),
    "input": ({"messages": [], "input": "y"}, "found input = 'y'; allowed: beside the fields of messages, system, "),
    "history": ({"prompt": "x", "chosen": "y", "rejected": "z", "history": [["a", "b"]]}, "found history = [['a',"),
    "weight": ({"prompt": "x", "completion": "y", "weight": 0.5}, "found weight = 0.5; allowed: beside the fields of"),
}


@pytest.mark.parametrize(("record", "message"), MEANING.values(), ids=MEANING)
def test_a_field_that_would_change_what_is_said_is_refused_by_name(record: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        unread(record, detect(record))
    assert str(caught.value).startswith(message)


def test_a_prompt_has_no_tools_while_a_reward_sees_all_else() -> None:
    check_prompt({"prompt": "x", "context": "y", "weight": 2, "tools": []})
    with pytest.raises(DataError, match=r"found tools = \['f'\]; allowed: prompts of text alone"):
        check_prompt({"prompt": "x", "tools": ["f"]})


@pytest.mark.parametrize("form", ["messages", "promptCompletion"])
def test_pairs_come_from_pairs_alone(form: Any) -> None:
    with pytest.raises(DataError, match="allowed: two answers: chosen and rejected"):
        pair({"messages": [], "prompt": "x", "completion": "y"}, form)


def test_a_lone_surrogate_becomes_a_replacement_character() -> None:
    found = dialogue({"prompt": "\ud800?", "completion": "y"}, "promptCompletion")
    assert found is not None and found.messages[0].content == "�?"
