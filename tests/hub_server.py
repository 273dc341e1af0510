"""A small server that speaks the Hugging Face Hub's protocol, with faults to ask for."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

_RESOLVE = re.compile(r"/(?P<data>datasets/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
_INFO = re.compile(r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)/revision/(?P<revision>[^/]+)")
_TREE = re.compile(r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)")
_PREUPLOAD = re.compile(r"/api/models/(?P<name>[^/]+/[^/]+)/preupload/(?P<revision>[^/]+)")
_COMMIT = re.compile(r"/api/models/(?P<name>[^/]+/[^/]+)/commit/(?P<revision>[^/]+)")
_BATCH = re.compile(r"/(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch")
LARGE = (".safetensors", ".bin", ".parquet")
"""Suffixes of what is kept as LFS."""


def sha1_of(content: bytes) -> str:
    """Git's name of a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@dataclass
class Repository:
    """Commits, and the branches that point at them."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    """Needed to read it, or to write."""
    gated: bool = False

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """A new commit with these files, which the branch moves to."""
        told = json.dumps([*self.commits, {path: sha1_of(content) for path, content in files.items()}])
        sha = hashlib.sha1(told.encode(), usedforsecurity=False).hexdigest()
        self.commits[sha] = dict(files)
        self.branches[branch] = sha
        return sha

    def at(self, revision: str) -> str | None:
        """The commit that a revision means."""
        return revision if revision in self.commits else self.branches.get(revision)


Fault = Callable[["Request"], bool]
"""What goes wrong with a request; whether it has been answered by that."""


class Hub:
    """The server; `faults` are asked before each answer, the first that answers is the answer."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.uploads: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.asked: list[str] = []
        """Method and path of each request."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Request,), {"hub": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """For HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def model(self, name: str, files: dict[str, bytes] | None = None) -> Repository:
        """A model's repository, made where there is none; with `files`, one commit more."""
        return self._repository("model", name, files)

    def data(self, name: str, files: dict[str, bytes] | None = None) -> Repository:
        """A dataset's repository; likewise."""
        return self._repository("dataset", name, files)

    def close(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._server.server_close()

    def _repository(self, kind: str, name: str, files: dict[str, bytes] | None) -> Repository:
        repository = self.repositories.setdefault((kind, name), Repository())
        if files is not None:
            repository.commit(files)
        return repository


def status(code: int, path: str = "", times: int = 10**6, headers: dict[str, str] | None = None) -> Fault:
    """The first `times` requests whose path has `path` in it are answered with this status."""
    left = [times]

    def fault(request: Request) -> bool:
        if path not in request.path or left[0] == 0:
            return False
        left[0] -= 1
        request.answer(code, b"no", headers or {})
        return True

    return fault


def slow(seconds: float, path: str = "") -> Fault:
    """Requests whose path has `path` in it wait before they are answered."""

    def fault(request: Request) -> bool:
        if path in request.path:
            time.sleep(seconds)
        return False

    return fault


def changed(path: str, change: Callable[[bytes], bytes], *, told: bool = True, times: int = 10**6) -> Fault:
    """Files of this name arrive otherwise than they are listed.

    Args:
        told: whether the length that is announced is that of what arrives, or that of the file.
    """
    left = [times]

    def fault(request: Request) -> bool:
        if request.command != "GET" or not request.path.endswith(path) or left[0] == 0:
            return False
        left[0] -= 1
        found = request.file()
        assert found is not None
        content = change(found[1])
        request.send_response(200)
        request.send_header("Content-Length", str(len(content if told else found[1])))
        request.end_headers()
        request.wfile.write(content)
        request.close_connection = True
        return True

    return fault


class Request(BaseHTTPRequestHandler):
    """One request."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, code: int, content: bytes, headers: dict[str, str]) -> None:
        """Send an answer; to HEAD without its content."""
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def file(self) -> tuple[str, bytes] | None:
        """The commit and content of the file that is asked for."""
        match = _RESOLVE.fullmatch(self._path())
        if match is None:
            return None
        repository = self.hub.repositories.get(("dataset" if match["data"] else "model", match["name"]))
        commit = repository and repository.at(unquote(match["revision"]))
        if repository is None or not commit or match["path"] not in repository.commits[commit]:
            return None
        return commit, repository.commits[commit][match["path"]]

    def _path(self) -> str:
        return urlsplit(self.path).path

    def _serve(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if any(fault(self) for fault in self.hub.faults):
            return
        path = self._path()
        if path == "/api/repos/create":
            asked = json.loads(body)
            repository = self.hub.model(f"{asked.get('organization')}/{asked['name']}")
            if self._may(repository, f"{asked.get('organization')}/{asked['name']}", writes=True):
                repository.branches or repository.commit({})
                self._json({"url": f"{self.hub.address}/{asked.get('organization')}/{asked['name']}"})
        elif path == "/api/whoami-v2":
            self._json({"name": "tester", "orgs": []})
        elif match := _RESOLVE.fullmatch(path):
            self._file("dataset" if match["data"] else "model", match["name"], unquote(match["revision"]))
        elif (match := _TREE.fullmatch(path)) or (match := _INFO.fullmatch(path)):
            self._listing(match["kind"][:-1], match["name"], unquote(match["revision"]), "/tree/" in path)
        elif match := _PREUPLOAD.fullmatch(path):
            paths = [one["path"] for one in json.loads(body)["files"]]
            self._json({"files": [{"path": path, "uploadMode": _mode(path), "shouldIgnore": False} for path in paths]})
        elif match := _BATCH.fullmatch(path):
            self._json({"transfer": "basic", "objects": [self._upload(one) for one in json.loads(body)["objects"]]})
        elif path.startswith("/upload/"):
            self.hub.uploads[path.removeprefix("/upload/")] = body
            self.answer(200, b"", {})
        elif match := _COMMIT.fullmatch(path):
            self._commit(match["name"], unquote(match["revision"]), body)
        else:
            self.answer(404, b"", {})

    def _may(self, repository: Repository | None, name: str, *, writes: bool = False) -> bool:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if repository is None or (repository.token is not None and token != repository.token and not writes):
            self.answer(401, b"", {"X-Error-Code": "RepoNotFound"})
            return False
        if repository.gated and token != repository.token:
            self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
            return False
        if writes and repository.token is not None and token != repository.token:
            self.answer(403, b"", {})
            return False
        return True

    def _listing(self, kind: str, name: str, revision: str, tree: bool) -> None:
        repository = self.hub.repositories.get((kind, name))
        if not self._may(repository, name):
            return
        assert repository is not None
        commit = repository.at(revision)
        if commit is None:
            self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif tree:
            self._json([_entry(path, content) for path, content in sorted(repository.commits[commit].items())])
        else:
            self._json({"id": name, "sha": commit, "siblings": [], "tags": [], "private": False, "downloads": 0})

    def _file(self, kind: str, name: str, revision: str) -> None:
        repository = self.hub.repositories.get((kind, name))
        if not self._may(repository, name):
            return
        found = self.file()
        if found is None:
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        commit, content = found
        large = self._path().endswith(LARGE)
        etag = hashlib.sha256(content).hexdigest() if large else sha1_of(content)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if large:
            headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{etag}"'}
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if start is None:
            self.answer(200, content, headers)
        else:
            rest = content[int(start[1]) :]
            headers["Content-Range"] = f"bytes {start[1]}-{len(content) - 1}/{len(content)}"
            self.answer(206, rest, headers)

    def _upload(self, asked: dict[str, Any]) -> dict[str, Any]:
        href = f"{self.hub.address}/upload/{asked['oid']}"
        return {"oid": asked["oid"], "size": asked["size"], "actions": {"upload": {"href": href}}}

    def _commit(self, name: str, branch: str, body: bytes) -> None:
        repository = self.hub.repositories.get(("model", name))
        if not self._may(repository, name, writes=True):
            return
        assert repository is not None
        files = dict(repository.commits[repository.branches[branch]])
        for line in body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.uploads[value["oid"]]
            elif operation["key"] == "deletedFile":
                files.pop(value["path"], None)
        sha = repository.commit(files, branch)
        url = f"{self.hub.address}/{name}/commit/{sha}"
        self._json({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})

    def _json(self, value: Any) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _mode(path: str) -> str:
    return "lfs" if path.endswith(LARGE) else "regular"


def _entry(path: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": sha1_of(content)}
    if path.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return entry
