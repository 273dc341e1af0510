"""`make setup` tells uv what pip is told."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
_found = importlib.util.spec_from_file_location("install", PROJECT / ".ci" / "install.py")
assert _found is not None and _found.loader is not None
install = importlib.util.module_from_spec(_found)
_found.loader.exec_module(install)


def test_of_pips_settings_a_variable_counts_more_than_a_section_and_a_section_more_than_the_global_one() -> None:
    listed = """\
:env:.index-url='https://variable.example/simple'
global.cert='/etc/ca.pem'
global.index-url='https://global.example/simple'
global.timeout='30'
install.timeout='60'
list.format='freeze'
"""
    assert install.pip_settings(listed) == {
        "cert": "/etc/ca.pem",
        "index-url": "https://variable.example/simple",
        "timeout": "60",
    }


def test_what_pip_itself_lists_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://mirror.example/it's/simple\nextra-index-url =\n    https://a.example\n    https://b.example\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_TRUSTED_HOST", "mirror.example")
    found = install.pip_settings(install._output([*install.PIP, "config", "list"]))
    told = install.uv_environment(found, {})
    assert told["UV_INDEX_URL"] == "https://mirror.example/it's/simple"
    assert told["UV_EXTRA_INDEX_URL"] == "https://a.example https://b.example"
    assert told["UV_INSECURE_HOST"] == "mirror.example"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, {}),
        ({"index-url": "https://i.example"}, {"UV_INDEX_URL": "https://i.example"}),
        (
            {"extra-index-url": "https://a.example\nhttps://b.example"},
            {"UV_EXTRA_INDEX_URL": "https://a.example https://b.example", "UV_INDEX_STRATEGY": "unsafe-best-match"},
        ),
        ({"trusted-host": "a b:8080"}, {"UV_INSECURE_HOST": "a b:8080"}),
        ({"find-links": "https://l.example /there-is-none /"}, {"UV_FIND_LINKS": "https://l.example,/"}),
        ({"default-timeout": "180", "retries": "9"}, {"UV_HTTP_TIMEOUT": "180", "UV_HTTP_RETRIES": "9"}),
        ({"proxy": "http://p.example:3128"}, {"ALL_PROXY": "http://p.example:3128"}),
        ({"client-cert": "/c.pem"}, {"SSL_CLIENT_CERT": "/c.pem"}),
    ],
    ids=str,
)
def test_a_setting_of_pip_becomes_one_of_uv(settings: dict[str, str], told: dict[str, str]) -> None:
    found = install.uv_environment({"cert": "/ca.pem", **settings}, {})
    assert found == {"SSL_CERT_FILE": "/ca.pem", **told}


@pytest.mark.parametrize(
    ("settings", "environment", "name"),
    [
        ({"cert": "/ca.pem"}, {"REQUESTS_CA_BUNDLE": "/other.pem"}, "SSL_CERT_FILE"),
        ({"cert": "/"}, {}, "SSL_CERT_DIR"),
        ({}, {"REQUESTS_CA_BUNDLE": "/ca.pem"}, "SSL_CERT_FILE"),
        ({}, {"CURL_CA_BUNDLE": "/ca.pem"}, "SSL_CERT_FILE"),
    ],
    ids=str,
)
def test_certificates_are_those_that_pip_trusts(
    settings: dict[str, str], environment: dict[str, str], name: str
) -> None:
    wanted = settings.get("cert") or "/ca.pem"
    assert install.uv_environment(settings, environment) == {name: wanted}


def test_without_a_bundle_the_systems_certificates_count_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, told in ((True, {"UV_SYSTEM_CERTS": "1"}), (False, {})):
        monkeypatch.setattr(install, "_system_has_certificates", lambda there=there: there)
        assert install.uv_environment({}, {}) == told


def test_where_uv_fails_pip_goes_on_and_says_so(tmp_path: Path) -> None:
    command = [sys.executable, PROJECT / ".ci" / "install.py", str(tmp_path / "no-project")]
    told = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PIP_NO_INDEX": "1"})
    assert "pip installs, in a few minutes: uv could not be had" in told.stdout
    assert told.returncode == 1


def test_what_only_pip_understands_is_left_to_pip(tmp_path: Path) -> None:
    command = [sys.executable, PROJECT / ".ci" / "install.py", str(tmp_path / "no-project")]
    told = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PIP_ONLY_BINARY": ":all:"})
    assert told.stdout == "pip installs, and not uv: only-binary is set for pip alone\n"
    assert told.returncode == 1


@pytest.mark.parametrize(
    "lock",
    [PROJECT / "requirements.lock", *PROJECT.glob("images/*/requirements.lock")],
    ids=lambda path: path.parent.name,
)
def test_a_lock_holds_names_and_versions_and_nothing_else(lock: Path) -> None:
    assert [line for line in lock.read_text().splitlines() if not re.fullmatch(r"[\w.-]+(==[\w.+!]+)?", line)] == []
