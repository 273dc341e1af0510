"""`python -m kindling_serve MODEL`: what the image runs; `kindling serve` finds models by name, too."""

from __future__ import annotations

import argparse
import logging
import os
import sys

from kindling_api.errors import KindlingError
from kindling_api.v1alpha1.products import MANIFEST, MODEL_FOLDER
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_serve.server import listen_at, serve
from kindling_serve.settings import KEY_VARIABLE, ServeSettings
from kindling_storage import open_store
from kindling_trainer.generate import load_model


def main() -> int:
    """Serve the model that the arguments name; returns the exit code."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    settings = ServeSettings(
        name=arguments.name,
        api_key=os.environ.get(KEY_VARIABLE) or None,
        page=arguments.page,
        slots=arguments.slots,
    )
    try:
        listener = listen_at(arguments.host, arguments.port, settings.patience)
        store = open_store(StorageSpec(uri=arguments.model, endpoint=arguments.endpoint, region=arguments.region))
        generator = load_model(store.child(MODEL_FOLDER) if store.exists(MANIFEST) else store)
    except KindlingError as error:
        logging.error("%s", error)
        return error.exit_code
    serve(generator, settings, listener)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("kindling_serve", description="Serve a model over HTTP.")
    parser.add_argument("model", metavar="URI", help="a model that Kindling made, or a Hugging Face folder")
    parser.add_argument("--name", default="model", help="the model's name in requests")
    parser.add_argument("--endpoint", help="the S3 server's address")
    parser.add_argument("--region", help="the S3 region")
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--slots", type=int, default=ServeSettings.slots, help="texts continued at the same time")
    parser.add_argument("--no-page", dest="page", action="store_false", help="the endpoint alone")
    return parser


if __name__ == "__main__":
    sys.exit(main())
