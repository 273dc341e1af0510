"""`python -m kindling_serve MODEL`: what the image runs; `kindling serve` finds models by name, too."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from typing import get_args

from kindling_api import logs
from kindling_api.errors import KindlingError
from kindling_api.logs import say
from kindling_api.v1alpha1.products import MANIFEST, MODEL_FOLDER
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_serve.server import listen_at, serve
from kindling_serve.settings import KEY_VARIABLE, ServeSettings
from kindling_storage import open_store
from kindling_trainer.inference.generate import Device, load_model

log = logging.getLogger(__name__)


def main() -> int:
    """Serve the model that the arguments name; returns the exit code."""
    arguments = _parser().parse_args()
    logs.set_up(arguments.log)
    logs.about(model=arguments.name)
    settings = ServeSettings(
        name=arguments.name,
        api_key=os.environ.get(KEY_VARIABLE) or None,
        origins=tuple(arguments.allow_origin),
        page=arguments.page,
        slots=arguments.slots,
        prefix_bytes=arguments.prefix_cache * 2**20,
    )
    try:
        listener = listen_at(arguments.host, arguments.port, settings.client_timeout)
        say(log, f"reading {arguments.model}", uri=arguments.model)
        store = open_store(StorageSpec(uri=arguments.model, endpoint=arguments.endpoint, region=arguments.region))
        generator = load_model(store.child(MODEL_FOLDER) if store.exists(MANIFEST) else store, arguments.device)
    except KindlingError as error:
        log.error("%s", error)
        return error.exit_code
    host, port = listener.getsockname()[:2]
    say(log, f"{arguments.name} is served at http://{host}:{port}")
    serve(generator, settings, listener)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("kindling_serve", description="Serve a model over HTTP.")
    parser.add_argument("model", metavar="URI", help="a model that Kindling made, or a Hugging Face folder")
    logs.add_option(parser)
    parser.add_argument("--name", default="model", help="the model's name in requests")
    parser.add_argument("--endpoint", help="the S3 server's address")
    parser.add_argument("--region", help="the S3 region")
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--slots", type=int, default=ServeSettings.slots, help="texts continued at the same time")
    kept = "MiB of memory for what was read of earlier dialogues; 0 for none"
    parser.add_argument("--prefix-cache", type=int, default=ServeSettings.prefix_bytes // 2**20, metavar="N", help=kept)
    device = "cpu in fp32, or cuda, a GPU, in bfloat16"
    parser.add_argument("--device", choices=get_args(Device), default="cpu", help=device)
    origin = "a web page's address whose scripts may use the endpoint, or *; repeatable"
    parser.add_argument("--allow-origin", action="append", default=[], metavar="ORIGIN", help=origin)
    parser.add_argument("--no-page", dest="page", action="store_false", help="the endpoint alone")
    return parser


if __name__ == "__main__":
    sys.exit(main())
