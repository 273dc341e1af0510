"""The key to a store: where boto3 finds it, or in a pod in files, which change with the Secret that they come from.

A session token ends after some hours, and keys are rotated; a run takes days. So each request is signed with what the
files say then: https://kubernetes.io/docs/concepts/configuration/secret/#mounted-secrets-are-updated-automatically.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import botocore.session
from boto3.session import Session
from botocore.credentials import CredentialProvider, Credentials, ReadOnlyCredentials
from botocore.exceptions import CredentialRetrievalError

from kindling_api.errors import RefusedError, explain
from kindling_api.v1alpha1.storage import CREDENTIALS, CREDENTIALS_VARIABLE, SOURCE_CREDENTIALS_VARIABLE

_LINK = "..data"
"""What kubelet lets point elsewhere to change all files of a folder at once."""
_TRIES = 5


def new_session(region: str | None, secret: str | None = None) -> Session:
    """A session of boto3 that finds credentials where this Secret is mounted, or where boto3 looks.

    Raises:
        RefusedError: the environment names a ServiceAccount's token, and it is not there.
    """
    core = botocore.session.get_session()
    folder = mounted_at(secret)
    if folder is None:
        _check_token()
    else:
        core.get_component("credential_provider").insert_before("env", _Provider(folder))
    return Session(region_name=region, botocore_session=core)


def _check_token() -> None:
    """Or botocore ends with an error of files."""
    token, key = (os.environ.get(name) for name in ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ACCESS_KEY_ID"))
    if token and not key and not Path(token).is_file():
        allowed, remedy = "a file with the token of a ServiceAccount", "see what mounts it, or unset the variable"
        found = f"{token}, which is not there"
        raise RefusedError(explain("AWS_WEB_IDENTITY_TOKEN_FILE", found=found, allowed=allowed, remedy=remedy))


def mounted_at(secret: str | None = None) -> Path | None:
    """The folder in which a pod has a Secret that a source names, or, for None, that of the products' store; None where
    there are no such folders."""
    folder = os.environ.get(CREDENTIALS_VARIABLE if secret is None else SOURCE_CREDENTIALS_VARIABLE)
    return Path(folder, secret or "") if folder else None


class MountedCredentials(Credentials):
    """A key in files, which is read anew for each request."""

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            CredentialRetrievalError: there is none.
        """
        self._folder = folder
        self._newest = _read(folder)
        key, secret, token = (value or "" for value in self._newest[:3])
        super().__init__(key, secret, token or None, _Provider.METHOD)

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """What the files say now; while they are being replaced, what they said last."""
        with suppress(CredentialRetrievalError):
            self._newest = _read(self._folder)
        return self._newest


class _Provider(CredentialProvider):
    METHOD = "kindling-mounted"
    CANONICAL_NAME = "KindlingMounted"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def load(self) -> MountedCredentials:
        return MountedCredentials(self._folder)


def _read(folder: Path) -> ReadOnlyCredentials:
    """All of one moment: kubelet makes a folder for each, which goes when the next one is there."""
    for _ in range(_TRIES):
        place = _newest(folder)
        key, secret, token = (_text(place / name) for name in CREDENTIALS)
        if key and secret and place == _newest(folder):
            return ReadOnlyCredentials(key, secret, token or None)
    found = f"no {CREDENTIALS[0]} and {CREDENTIALS[1]} in {folder}"
    raise CredentialRetrievalError(provider=_Provider.METHOD, error_msg=found)


def _newest(folder: Path) -> Path:
    return (folder / _LINK).resolve() if (folder / _LINK).exists() else folder


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
