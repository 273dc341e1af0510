"""A store without a static key: a ServiceAccount's token is exchanged for one, by MinIO's own token service."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from joserfc import jwt
from joserfc.jwk import RSAKey

from kindling_api.errors import RefusedError
from kindling_storage import open_store

AUDIENCE = "sts.amazonaws.com"
ROLE = re.compile(r"arn:minio:iam:\S+")
Tokens = Callable[..., None]


@pytest.fixture(scope="module")
def key() -> RSAKey:
    return RSAKey.import_key(generate_private_key(65537, 2048), {"kid": "1", "use": "sig", "alg": "RS256"})


@pytest.fixture(scope="module")
def issuer(key: RSAKey) -> Iterator[str]:
    """The address of what a cluster's API server is for the tokens of its ServiceAccounts."""

    class Discovery(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            jwks = {"keys": [key.as_dict(private=False)]}
            configuration = {"issuer": address, "jwks_uri": f"{address}/jwks", "response_types_supported": ["id_token"]}
            body = json.dumps(jwks if self.path == "/jwks" else configuration).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Discovery) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield address
        server.shutdown()


@pytest.fixture
def minio(minio_program: str, issuer: str, free_port: int, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The address of a MinIO that trusts the issuer, and the name of the role that it grants."""
    folder = tmp_path / "minio"
    (folder / "data" / "bucket").mkdir(parents=True)
    address, log = f"127.0.0.1:{free_port}", folder / "log"
    settings = {
        "MINIO_ROOT_USER": "kindling-test",
        "MINIO_ROOT_PASSWORD": "kindling-test-password",
        "MINIO_IDENTITY_OPENID_CONFIG_URL": f"{issuer}/.well-known/openid-configuration",
        "MINIO_IDENTITY_OPENID_CLIENT_ID": AUDIENCE,
        "MINIO_IDENTITY_OPENID_ROLE_POLICY": "readwrite",
    }
    command = [minio_program, "server", "--address", address, str(folder / "data")]
    with log.open("w") as output:
        process = subprocess.Popen(command, env=os.environ | settings, stdout=output, stderr=subprocess.STDOUT)
        try:
            until = time.monotonic() + 60
            while not (role := ROLE.search(log.read_text())) or "API:" not in log.read_text():
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.1)
            yield f"http://{address}", role.group()
        finally:
            process.kill()


@pytest.fixture
def tokens(key: RSAKey, issuer: str, minio: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tokens:
    """Writes a token where a pod has it; the environment is what the webhook of a cloud gives a pod."""
    token, (endpoint, role) = tmp_path / "token", minio
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"ROLE_ARN": role, "WEB_IDENTITY_TOKEN_FILE": str(token), "ENDPOINT_URL_STS": endpoint}.items():
        monkeypatch.setenv(f"AWS_{name}", value)

    def write(audience: str = AUDIENCE, seconds: int = 3600) -> None:
        now = int(time.time())
        subject = "system:serviceaccount:team:trainer"
        claims = {"iss": issuer, "aud": audience, "sub": subject, "iat": now, "exp": now + seconds}
        token.write_text(jwt.encode({"alg": "RS256", "kid": "1"}, claims, key))

    return write


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_pod_with_a_role_needs_no_key(tokens: Tokens, minio: tuple[str, str]) -> None:
    tokens()
    store = open_store("s3://bucket/runs", endpoint=minio[0])
    store.put("a", b"text")
    assert store.get("a") == b"text"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        pytest.param({"audience": "somebody-else"}, "the token service refuses AWS_ROLE_ARN", id="another audience"),
        pytest.param({"seconds": -60}, r"Token is expired.*let the role's trust policy name", id="an old token"),
        pytest.param(None, "AWS_WEB_IDENTITY_TOKEN_FILE: found .*/token, which is not there", id="no token"),
    ],
)
def test_a_role_that_is_not_granted_is_told_as_that(
    wrong: dict[str, object] | None, why: str, tokens: Tokens, minio: tuple[str, str]
) -> None:
    if wrong is not None:
        tokens(**wrong)
    with pytest.raises(RefusedError, match=why):
        open_store("s3://bucket/runs", endpoint=minio[0]).get("a")
