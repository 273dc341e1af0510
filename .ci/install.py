"""Install the project and its pinned packages into the environment of this Python, with uv, or with pip where uv fails.

    .venv/bin/python .ci/install.py '.[dev]'

uv takes a fraction of pip's time, and compiles what it has installed, as pip does: where Python may write no bytecode
(PYTHONDONTWRITEBYTECODE), each process would compile all of torch anew.

pip fetches uv, which is told what pip is told: index, certificates, proxy and more, from pip's files and variables
(pip.conf, PIP_INDEX_URL, …). What is set for uv itself (UV_INDEX, …) stays as it is.
"""

from __future__ import annotations

import ast
import os
import ssl
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

LOCK = Path(__file__).resolve().parent.parent / "requirements.lock"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
PIP_ALONE = (
    "constraint",
    "keyring-provider",
    "no-binary",
    "no-build-isolation",
    "only-binary",
    "pre",
    "require-hashes",
)
"""Settings of pip that decide what is installed, and for which uv has no equal: with one of them, pip installs."""

Settings = Mapping[str, str]


def main(project: str) -> int:
    """Install it; the exit status of what installed."""
    settings = pip_settings(_output([*PIP, "config", "list"]))
    alone = [name for name in PIP_ALONE if settings.get(name)]
    if alone:
        print(f"pip installs, and not uv: {', '.join(alone)} is set for pip alone")
    elif _with_uv(project, settings):
        return 0
    else:
        print("pip installs, in a few minutes: uv could not be had, or failed as said above")
    return subprocess.run([*PIP, "install", "-q", "-c", LOCK, "-e", project]).returncode


def _with_uv(project: str, settings: Settings) -> bool:
    if subprocess.run([*PIP, "install", "-q", "-c", LOCK, "uv"]).returncode:
        return False
    uv = [sys.executable, "-m", "uv", "pip", "install", "-q", "--compile-bytecode", "--python", sys.executable]
    alone = ["--no-index"] if settings.get("no-index", "0").lower() in ("1", "true", "yes", "on") else []
    environment = {**uv_environment(settings, os.environ), **os.environ}
    return subprocess.run([*uv, *alone, "-c", LOCK, "-e", project], env=environment).returncode == 0


def pip_settings(listed: str) -> dict[str, str]:
    """pip's settings by the names of its options, from what `pip config list` prints.

    Of one option, a variable counts more than the section of `pip install`, and that more than the global one.
    """
    found: dict[str, str] = {}
    lines = [line.partition("=") for line in listed.splitlines() if "=" in line]
    for section in ("global.", "install.", ":env:."):
        for name, _, value in lines:
            if name.startswith(section):
                found[name.removeprefix(section)] = str(ast.literal_eval(value))
    return found


def uv_environment(settings: Settings, environment: Settings) -> dict[str, str]:
    """The variables that tell uv what pip is told; one that would be empty is left out.

    Args:
        settings: pip's settings by the names of its options.
        environment: The variables there are, of which pip heeds some that uv does not.
    """
    links = [link for link in settings.get("find-links", "").split() if "://" in link or Path(link).exists()]
    bundle = settings.get("cert") or environment.get("REQUESTS_CA_BUNDLE") or environment.get("CURL_CA_BUNDLE", "")
    told = {
        "UV_INDEX_URL": settings.get("index-url", ""),  # UV_DEFAULT_INDEX, where it is set, counts more
        "UV_EXTRA_INDEX_URL": " ".join(settings.get("extra-index-url", "").split()),
        "UV_INDEX_STRATEGY": "unsafe-best-match" if settings.get("extra-index-url") else "",  # as pip: the best of all
        "UV_FIND_LINKS": ",".join(links),
        "UV_INSECURE_HOST": " ".join(settings.get("trusted-host", "").split()),
        "SSL_CERT_DIR" if Path(bundle).is_dir() else "SSL_CERT_FILE": bundle,
        "UV_SYSTEM_CERTS": "" if bundle or not _system_has_certificates() else "1",
        "SSL_CLIENT_CERT": settings.get("client-cert", ""),
        "ALL_PROXY": settings.get("proxy", ""),
        "UV_HTTP_TIMEOUT": settings.get("timeout") or settings.get("default-timeout", ""),
        "UV_HTTP_RETRIES": settings.get("retries", ""),
    }
    return {name: value for name, value in told.items() if value}


def _system_has_certificates() -> bool:
    paths = ssl.get_default_verify_paths()
    return paths.cafile is not None or (paths.capath is not None and any(Path(paths.capath).iterdir()))


def _output(command: list[str]) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
