#!/usr/bin/env python3
"""Docker, kind and Helm on a machine that has none and no Docker Hub, for `make kind`. Root, and Go the first time.

machine.py run COMMAND…   with the machine's own Docker, kind and Helm where there are some, or else as below
machine.py up             start Docker's daemon, and build what nobody can pull here; says what to export
machine.py down           end the daemon, and the kind clusters in it
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import kind_docker
import kind_images
import kind_programs
import pytorch_wheel

from kubenode.places import TOOLS
from kubenode.processes import ClusterError, run

INDEX, PORT = kind_docker.STATE / "index", 8765
CLUSTER = "kindling"


def main() -> None:
    """Do as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run").add_argument("words", nargs=argparse.REMAINDER)
    commands.add_parser("up")
    commands.add_parser("down")
    arguments = parser.parse_args()
    try:
        match arguments.command:
            case "run":
                sys.exit(_run(arguments.words))
            case "up":
                settings = _prepare()
                print("export " + " ".join(f'{name}="{value}"' for name, value in settings.items()))
            case "down":
                _stop()
    except ClusterError as problem:
        sys.exit(str(problem))


def _run(words: list[str]) -> int:
    if kind_docker.answers() and not kind_docker.is_running() and shutil.which("kind") and shutil.which("helm"):
        return subprocess.run(words).returncode
    was_up = kind_docker.is_running()
    try:
        settings = _prepare()
        with _index():
            return subprocess.run(words, env={**os.environ, **settings}).returncode
    finally:
        if not was_up:
            _stop()


def _prepare() -> dict[str, str]:
    """The variables that `make kind` is to find."""
    kind_programs.install()
    kind_docker.start()
    path = os.pathsep.join([str(TOOLS), os.environ["PATH"]])
    os.environ["PATH"] = path
    kind_images.build()
    pytorch_wheel.main(INDEX)
    return {
        "PATH": path,
        "KIND_OPTIONS": f"--image {kind_images.node()}",
        "PYTORCH_INDEX": f"http://{kind_docker.BRIDGE}:{PORT}",
    }


@contextmanager
def _index() -> Iterator[None]:
    """Serves the wheel to builds of images."""
    command = [sys.executable, "-m", "http.server", "--bind", kind_docker.BRIDGE, "--directory", INDEX, str(PORT)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        server.terminate()
        server.wait()


def _stop() -> None:
    if kind_docker.is_running():
        run(TOOLS / "kind", "delete", "cluster", "--name", CLUSTER, check=False)
    kind_docker.stop()


if __name__ == "__main__":
    main()
