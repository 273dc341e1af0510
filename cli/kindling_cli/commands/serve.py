"""`kindling serve`: a model behind an OpenAI-compatible endpoint, with a chat page."""

from __future__ import annotations

import os

from rich.console import Console

from kindling_cli.load_model import load_generator
from kindling_serve.server import listen_at, serve
from kindling_serve.settings import KEY_VARIABLE, ServeSettings
from kindling_trainer.inference.generate import Device


def serve_model(
    model: str,
    *,
    store: str,
    host: str,
    port: int,
    name: str | None,
    page: bool,
    slots: int,
    max_tokens: int,
    origins: list[str],
    device: Device,
    prefix_cache: int,
) -> None:
    """Serve until Ctrl-C.

    Raises:
        SpecError: there is no such device, `model` means no model, or the address cannot be had.
    """
    console = Console(highlight=False)
    settings = ServeSettings(
        name=name or model.rstrip("/").rpartition("/")[2],
        api_key=os.environ.get(KEY_VARIABLE) or None,
        origins=tuple(origins),
        page=page,
        slots=slots,
        prefix_bytes=prefix_cache * 2**20,
        most_tokens=max_tokens,
    )
    with listen_at(host, port, settings.client_timeout) as listener:
        console.print(f"Reading {model} …", style="dim", markup=False)
        generator = load_generator(model, store, device)
        where = f"http://{host}:{listener.getsockname()[1]}"
        if page:
            console.print(f"Chat      {where}", markup=False)
        console.print(f"OpenAI    {where}/v1   model {settings.name}", markup=False)
        if settings.api_key is None:
            console.print(f"No API key is asked for; set {KEY_VARIABLE} to ask for one.", style="dim", markup=False)
        serve(generator, settings, listener)
