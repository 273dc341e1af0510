"""The project's images: built from its own Dockerfiles without Docker, only when something in them changed."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from kubenode.places import CACHE, PROJECT, REGISTRY
from kubenode.processes import run, run_long

NAMES = ("operator", "dataprep", "trainer", "serve")
BASE = "localhost/python:3.11-slim-bookworm"
"""Stands in for Docker Hub's python:3.11-slim-bookworm, which cannot be had everywhere."""

COMPRESSION = ("--compression-format", "zstd", "--compression-level", "1")

LONGEST_BUILD = 2400
"""Seconds, on a machine that is busy with other things."""

BASE_PACKAGES = "ca-certificates,python3,python3-pip,python3-venv,python3-dev,python-is-python3"

STAMPS = CACHE / "images"
"""What each image was built from, and what of it was pushed."""


def reference(name: str) -> str:
    """What pods call the image."""
    return f"{REGISTRY}/kindling-{name}:dev"


def build_images() -> None:
    """Build those whose sources changed; a change of code costs seconds, one of dependencies minutes.

    Raises:
        ClusterError: a build failed.
    """
    make_base()
    for name in NAMES:
        if _stamp(name, "built") != sources_digest(name) or not _exists(reference(name)):
            _build(name)
    run("buildah", "rmi", "--prune", "--force", check=False)  # what has been replaced: gigabytes, each time


def push_images() -> list[str]:
    """Push to the cluster's registry those that it lacks; all that it has now."""
    for name in NAMES:
        built = _stamp(name, "built") or ""  # of the image, whatever has become of the sources since
        if _stamp(name, "pushed") != built or not _in_registry(name):
            print(f"pushing {reference(name)}", file=sys.stderr, flush=True)
            run_long("buildah", "push", "-q", "--tls-verify=false", *COMPRESSION, reference(name), seconds=900)
            _write_stamp(name, "pushed", built)
    return [reference(name) for name in NAMES]


def with_files(name: str, base: str, files: Mapping[str, str]) -> str:
    """Another image, pushed: one of ours, and texts by the paths that they get there. What pods call it.

    Raises:
        ClusterError: it could not be built or pushed.
    """
    container = run("buildah", "from", reference(base)).stdout.strip()
    try:
        for path, text in files.items():
            with tempfile.NamedTemporaryFile("w") as file:
                file.write(text)
                file.flush()
                run("buildah", "copy", "-q", "--chmod", "644", container, file.name, path)
        run("buildah", "commit", "-q", container, reference(name))
    finally:
        run("buildah", "rm", container)
    run_long("buildah", "push", "-q", "--tls-verify=false", *COMPRESSION, reference(name), seconds=900)
    return reference(name)


def sources_digest(name: str) -> str:
    """Of all that goes into the image: its Dockerfile, and the files that it copies."""
    dockerfile = PROJECT / "images" / name / "Dockerfile"
    digest = hashlib.sha256(BASE_PACKAGES.encode() + dockerfile.read_bytes())
    for path in sorted({path for source in copied(dockerfile.read_text()) for path in _files(PROJECT / source)}):
        digest.update(f"\0{path.relative_to(PROJECT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def copied(dockerfile: str) -> list[str]:
    """What a Dockerfile takes from the project."""
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE)
    return [source for line in lines for source in line.split()]


def pip_settings() -> str:
    """What pip is told by this machine's environment, as a configuration file: no image remembers it."""
    ours = {
        key.removeprefix("PIP_").lower().replace("_", "-"): value
        for key, value in os.environ.items()
        if key.startswith("PIP_")
    }
    ours = {key: value for key, value in ours.items() if key not in ("cert", "find-links")}  # files of this machine
    if _authorities():
        ours["cert"] = "/etc/build-certificates.pem"
    return "\n".join(["[global]", *(f"{key} = {value}" for key, value in ours.items()), ""])


def _build(name: str) -> None:
    print(f"building {reference(name)}", file=sys.stderr, flush=True)
    digest = sources_digest(name)
    STAMPS.mkdir(parents=True, exist_ok=True)
    settings = STAMPS / "pip.conf"
    settings.write_text(pip_settings())
    mounts = ["--volume", f"{settings}:/etc/pip.conf:ro"]
    if authorities := _authorities():
        mounts += ["--volume", f"{authorities}:/etc/build-certificates.pem:ro"]
    run_long(
        *("buildah", "build", "-q", "--isolation", "chroot", "--layers", "--build-arg", f"BASE={BASE}", *mounts),
        *("--file", PROJECT / "images" / name / "Dockerfile", "--tag", reference(name), PROJECT),
        seconds=LONGEST_BUILD,
    )
    _write_stamp(name, "built", digest)


def make_base() -> None:
    """A minimal Debian with Python, made with debootstrap."""
    if _exists(BASE):
        return
    print(f"making {BASE}", file=sys.stderr, flush=True)
    folder = CACHE / "base"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    run_long("debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", "bookworm", folder, seconds=900)
    shutil.rmtree(folder / "var/cache/apt/archives")
    for marker in folder.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):  # Docker Hub's Python has none
        marker.unlink()
    container = run("buildah", "from", "scratch").stdout.strip()
    run("buildah", "add", "-q", container, folder, "/")
    run("buildah", "config", "--env", "PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin", container)
    run("buildah", "config", "--env", "LANG=C.UTF-8", "--cmd", "python3", container)
    run("buildah", "commit", "-q", "--rm", container, BASE)
    shutil.rmtree(folder)


def _authorities() -> Path | None:
    """The certificates that this machine trusts, where it was told so."""
    named = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
    return Path(named).resolve() if named and Path(named).exists() else None


def _exists(image: str) -> bool:
    return run("buildah", "inspect", "--type", "image", image, check=False).returncode == 0


def _in_registry(name: str) -> bool:
    manifest = f"http://{REGISTRY}/v2/kindling-{name}/manifests/dev"
    accepted = "application/vnd.oci.image.manifest.v1+json"
    try:
        with urllib.request.urlopen(urllib.request.Request(manifest, headers={"Accept": accepted}), timeout=5):
            return True
    except OSError:
        return False


def _files(source: Path) -> Iterator[Path]:
    if source.is_file():
        yield source
    for path in source.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def _stamp(name: str, what: str) -> str | None:
    path = STAMPS / f"{name}.{what}"
    return path.read_text() if path.exists() else None


def _write_stamp(name: str, what: str, digest: str) -> None:
    STAMPS.mkdir(parents=True, exist_ok=True)
    (STAMPS / f"{name}.{what}").write_text(digest)
