"""The chat page: Gradio, at the address of the endpoint and on its engine. It loads nothing from elsewhere."""

from __future__ import annotations

import asyncio
import hmac
import os
from collections.abc import AsyncIterator
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # it is read when Gradio is imported

import gradio as gr
from starlette.applications import Starlette

from kindling_api.errors import UserError
from kindling_serve.answers import stream_pieces
from kindling_serve.completions import ChatExchange
from kindling_serve.engine import Busy, GenerationEngine
from kindling_serve.errors import ApiError
from kindling_serve.messages import ChatMessage
from kindling_serve.protocol import ChatRequest
from kindling_serve.settings import ServeSettings
from kindling_trainer.inference.generate import Generator

FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
BASE_MODEL = "A base model: it does not answer, it continues what you write."
ANSWERS = "Write a message; an answer can be stopped, and asked for again."


def mount_page(app: Starlette, generator: Generator, settings: ServeSettings, engine: GenerationEngine) -> None:
    """Puts the page at `/` of an application. With an API key, it asks for a password, which is the key."""
    page = _Page(generator, settings, engine)
    gr.mount_gradio_app(
        app,  # a FastAPI by its annotation; what it needs, Starlette has
        page.blocks(),
        path="/",
        app_kwargs={"docs_url": None, "redoc_url": None},
        auth=None if settings.api_key is None else page.knows,
        auth_message="The password is the server's API key; any name will do.",
        theme=gr.themes.Soft(primary_hue="orange", font=FONTS, font_mono=["ui-monospace", "monospace"]),
        css="footer {display: none !important}",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        max_file_size="1kb",
    )


class _Page:
    def __init__(self, generator: Generator, settings: ServeSettings, engine: GenerationEngine) -> None:
        self.generator, self.settings, self.engine = generator, settings, engine

    def knows(self, _: str, password: str) -> bool:
        """Whether somebody may come in."""
        return hmac.compare_digest(password.encode(errors="replace"), os.fsencode(self.settings.api_key or ""))

    def blocks(self) -> gr.Blocks:
        """Dialogues that the browser remembers on the left, the settings on the right."""
        chats, name = self.generator.chat is not None, self.settings.name
        blocks = gr.Blocks(title=name, fill_height=True, analytics_enabled=False)
        with blocks:
            with gr.Sidebar(position="right", width=300):
                settings = self._settings()
            gr.ChatInterface(
                self.answer,
                chatbot=gr.Chatbot(
                    placeholder=f"### {name}\n{ANSWERS if chats else BASE_MODEL}",
                    show_label=False,
                    buttons=["copy"],
                    height="70vh",
                ),
                textbox=gr.Textbox(
                    placeholder="Message", show_label=False, submit_btn=True, stop_btn=True, elem_id="message"
                ),
                additional_inputs=settings,
                title=name,
                concurrency_limit=None,  # the engine has its own
                save_history=True,
                analytics_enabled=False,
                api_visibility="private",
            )
        return blocks

    def _settings(self) -> list[str | gr.components.Component]:
        most = self.settings.most_tokens
        return [
            gr.Textbox(label="System message", lines=2, visible=self.generator.chat is not None),
            gr.Slider(0, 2, value=0.8, step=0.05, label="Temperature", info="0 is greedy"),
            gr.Slider(0, 200, value=0, step=1, label="Top-k", info="0 is off"),
            gr.Slider(0.05, 1, value=1, step=0.05, label="Top-p", info="1 is off"),
            gr.Slider(1, most, value=min(256, most), step=1, label="Most tokens"),
            gr.Textbox(label="Stop", placeholder="a text that ends the answer; one a line", lines=2),
        ]

    async def answer(
        self,
        message: str,
        history: list[dict[str, Any]],
        system: str,
        temperature: float,
        top_k: float,
        top_p: float,
        max_tokens: float,
        stop: str,
    ) -> AsyncIterator[str]:
        """The assistant's answer as it grows.

        What goes wrong is shown, and not raised: Gradio would take no further message.
        """
        said = [ChatMessage(role=turn["role"], content=_text_of(turn["content"])) for turn in history]
        asked = ChatMessage(role="user", content=message)
        instruction = [ChatMessage(role="system", content=system)] if system.strip() else []
        try:
            request = ChatRequest(
                model=self.settings.name,
                messages=[*instruction, *said, asked],
                temperature=float(temperature),
                top_k=int(top_k),
                top_p=float(top_p),
                max_tokens=int(max_tokens),
                stop=[line for line in stop.splitlines() if line] or None,
            )
            exchange = await asyncio.to_thread(ChatExchange, request, self.generator, self.settings, forget=True)
            text = ""
            with self.engine.submit(exchange.tasks) as session:
                async for piece in stream_pieces(session, self.generator.tokenizer, request.stops()):
                    text += piece.text
                    yield text
        except Busy:
            gr.Warning("Too many people are talking to the model; try again in a moment.")
        except (ApiError, UserError, ValueError) as error:
            gr.Warning(str(error))


def _text_of(content: Any) -> str:
    """What was said in a turn, in any of the forms that Gradio has for it."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    return "".join(part if isinstance(part, str) else str(part.get("text", "")) for part in parts)
