"""`kindling serve`: a model behind an OpenAI-compatible endpoint, with a chat page."""

from __future__ import annotations

import os

from rich.console import Console

from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.products import MANIFEST, MODEL_FOLDER
from kindling_cli.load_model import load_generator
from kindling_cli.product_folders import MODELS, find
from kindling_serve.server import listen_at, serve
from kindling_serve.settings import KEY_VARIABLE, ServeSettings
from kindling_storage import ObjectStore
from kindling_trainer.inference.generate import Device, Generator


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
    adapters: list[str],
    prefix_cache: int,
) -> None:
    """Serve until Ctrl-C.

    Raises:
        SpecError: there is no such device, `model` means no model, or the address cannot be had; one of `adapters`,
            NAME=PATH, is none for it.
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
    folders = _folders(adapters, settings.name, store)
    with listen_at(host, port, settings.client_timeout) as listener:
        console.print(f"Reading {model} …", style="dim", markup=False)
        generator = load_generator(model, store, device)
        adapted = _adapted(model, store, generator, folders)
        where = f"http://{host}:{listener.getsockname()[1]}"
        if page:
            console.print(f"Chat      {where}", markup=False)
        console.print(f"OpenAI    {where}/v1   model {', '.join([settings.name, *adapted])}", markup=False)
        if settings.api_key is None:
            console.print(f"No API key is asked for; set {KEY_VARIABLE} to ask for one.", style="dim", markup=False)
        serve(generator, settings, listener, adapted)


def _folders(adapters: list[str], base: str, store: str) -> dict[str, ObjectStore]:
    """The PEFT folders, by the names under which they are served."""
    folders: dict[str, ObjectStore] = {}
    for given in adapters:
        name, _, what = given.partition("=")
        taken = name in (base, *folders)
        if not name or not what or taken:
            allowed = "another name for each model" if taken else "NAME=PATH"
            remedy = "choose another name" if taken else "write for instance --adapter tuned=./tuned-adapter"
            raise SpecError(explain("--adapter", found=repr(given), allowed=allowed, remedy=remedy))
        folders[name] = find(what, store, MODELS).store
    return folders


def _adapted(model: str, store: str, base: Generator, folders: dict[str, ObjectStore]) -> dict[str, Generator]:
    """The model with each of the adapters."""
    if not folders:
        return {}
    from kindling_trainer.inference.adapted import load_adapted  # not above: most serve a model alone

    place = find(model, store, MODELS).store
    place = place.child(MODEL_FOLDER) if place.exists(MANIFEST) else place
    return {name: load_adapted(base, place, folder) for name, folder in folders.items()}
