"""Images of one static program each, as archives that a node imports: no registry and no builder is needed."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

from kubenode.places import CACHE, TOOLS


@dataclass(frozen=True)
class ProgramImage:
    """An image with nothing but a program of `TOOLS`, which runs as an unprivileged user."""

    name: str
    program: str
    user: int = 65532

    def archive(self) -> Path:
        """The image as `docker save` would write it; it is made anew when the program changed."""
        program = TOOLS / self.program
        path = CACHE / "archives" / f"{self.program}.tar"
        if not path.exists() or path.stat().st_mtime < program.stat().st_mtime:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            self._write(partial, program)
            partial.rename(path)
        return path

    def _write(self, path: Path, program: Path) -> None:
        layer = _tar({self.program: program.read_bytes()}, mode=0o755)
        digest = hashlib.sha256(layer).hexdigest()
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": [f"/{self.program}"], "User": f"{self.user}:{self.user}"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
        manifest = [{"Config": "config.json", "RepoTags": [self.name], "Layers": ["layer.tar"]}]
        files = {"manifest.json": json.dumps(manifest).encode(), "config.json": json.dumps(config).encode()}
        path.write_bytes(_tar({**files, "layer.tar": layer}))


PAUSE = ProgramImage("localhost/pause:1", "pause")
MINIO = ProgramImage("localhost/minio:1", "minio")
KUBERAY = ProgramImage("localhost/kuberay-operator:1", "ray-operator")
KUEUE = ProgramImage("localhost/kueue:1", "kueue")


def _tar(files: dict[str, bytes], mode: int = 0o644) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
