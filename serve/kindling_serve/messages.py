"""The messages of a dialogue as OpenAI's API has them, and as chat templates take them."""

from __future__ import annotations

import json
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, field_validator, model_validator
from pydantic_core import PydanticUseDefault

from kindling_api.errors import SpecError, explain
from kindling_trainer.chat.message import Message


class Lenient(BaseModel):
    """A part of a request: what it does not know is ignored, and null means the default."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _null_is_the_default(cls, value: Any) -> Any:
        if value is None:
            raise PydanticUseDefault
        return value


class ContentPart(Lenient):
    """A part of a message; of the kinds that OpenAI has, those that are text."""

    type: Literal["text", "refusal"]
    text: str | None = None
    refusal: str | None = None

    @model_validator(mode="after")
    def _has_its_text(self) -> Self:
        if getattr(self, self.type) is None:
            raise SpecError(explain(self.type, found="no such field", allowed="a text", remedy="add it"))
        return self

    @property
    def plain(self) -> str:
        """The text."""
        return str(getattr(self, self.type))


class FunctionCall(Lenient):
    """What the assistant asked a function."""

    name: str
    arguments: str = ""
    """JSON, if the model wrote it well."""


class ToolCall(Lenient):
    """A call of a tool, in an earlier answer."""

    id: str | None = None
    function: FunctionCall


class ChatMessage(Lenient):
    """A message of a dialogue."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    """The assistant may have said nothing, as where it called a tool."""
    name: str | None = None
    tool_calls: list[ToolCall] = []
    function_call: FunctionCall | None = None
    """The older form of `tool_calls`."""
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.content is None and self.role != "assistant":
            allowed = "a text or a list of text parts; null is for the assistant alone"
            raise SpecError(explain("content", found="null", allowed=allowed, remedy="add it"))
        return self

    def plain(self) -> Message:
        """With one text, and roles as all templates know them.

        Calls and results of tools become text, in the form that llama.cpp gives them for templates without tools
        (google/minja, `polyfill_tool_calls` and `polyfill_tool_responses`).
        """
        content = self.content or ""
        text = content if isinstance(content, str) else "".join(part.plain for part in content)
        calls = [*self.tool_calls, *([ToolCall(function=self.function_call)] if self.function_call else [])]
        match self.role:
            case "tool" | "function":
                response = {"tool": self.name, "tool_call_id": self.tool_call_id, "content": text}
                return Message("user", _json({"tool_response": response}))
            case "assistant" if calls:
                called = [{"id": call.id, **call.function.model_dump()} for call in calls]
                return Message("assistant", _json({"tool_calls": called, "content": text or None}))
            case "developer":
                return Message("system", text)
            case role:
                return Message(role, text)


def _json(value: dict[str, Any]) -> str:
    """The object as text for the model; what is null is left out."""

    def without_null(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without_null(item) for key, item in value.items() if item is not None}
        return [without_null(item) for item in value] if isinstance(value, list) else value

    return json.dumps(without_null(value), ensure_ascii=False)
