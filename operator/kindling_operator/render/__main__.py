"""`python -m kindling_operator.render FILE…`: print the objects that the operator would make of documents.

Exit code 0: done. 2: a document or the settings are wrong. No cluster is asked: what other documents are still to make
is stood in for.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from pydantic import ValidationError

from kindling_api import __version__
from kindling_api.documents import load
from kindling_api.errors import EXIT_DONE, KindlingError, SpecError, explain
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_operator.render.manifests import manifests
from kindling_operator.settings import Images, Settings, read_settings


def main(arguments: list[str] | None = None) -> int:
    """Print YAML; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m kindling_operator.render", description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE|FOLDER", help="YAML documents")
    parser.add_argument("--settings", type=Path, metavar="FILE", help="what the chart wrote for the operator, as JSON")
    options = parser.parse_args(arguments)
    try:
        settings = _settings(options.settings) if options.settings else default_settings()
        text = "".join(manifests([loaded.document for loaded in load(options.files)], settings))
    except KindlingError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    sys.stdout.write(text)
    return EXIT_DONE


def default_settings() -> Settings:
    """An installation that nobody has configured."""
    return Settings(
        images=Images(
            trainer=f"kindling-trainer:{__version__}",
            dataprep=f"kindling-dataprep:{__version__}",
            serve=f"kindling-serve:{__version__}",
        ),
        storage=StorageSpec(uri="s3://kindling", credentials_secret="kindling-storage"),
    )


def _settings(path: Path) -> Settings:
    try:
        return read_settings(path)
    except OSError as error:
        found, remedy = (error.strerror or "an error").lower(), "check the path"
        raise SpecError(explain(str(path), found=found, allowed="a file that can be read", remedy=remedy)) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        allowed, remedy = "the settings that the chart writes", "take them from the operator's ConfigMap as they are"
        where = f"{path}: {place}" if place else str(path)
        raise SpecError(explain(where, found=first["msg"], allowed=allowed, remedy=remedy)) from None


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # in `… | head`, end with the reader
    sys.exit(main())
