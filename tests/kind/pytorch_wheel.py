"""A wheel of this environment's PyTorch as its build for CPUs, where the index that has the real one is out of reach.

PyPI's PyTorch is linked with 3 GB of CUDA's libraries, which a CPU never calls. Here each of them is replaced by a
library of the same name, versions and symbols in which every function ends the process; CUDA's runtime, which says that
there is no device, stays.
"""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

KEPT = re.compile(r"libcudart|libcupti|libcufile\.|libcudnn\.so")
"""Small, and called when PyTorch is loaded."""
FOREIGN = re.compile(r"(cuda|nvidia)[-_]|triton")
DATA_BYTES = 4096
"""Of each variable, whatever it is."""
SYMBOL = re.compile(r"^[0-9a-f]+ (?P<type>[A-Za-z]) (?P<name>[^@\s]+)(?:@+(?P<version>\S+))?$")


def main(folder: Path) -> None:
    """Write `torch/torch-VERSION+cpu-….whl` into a folder that an index can be served from, unless it is there."""
    torch = distribution("torch")
    version = f"{torch.version.partition('+')[0]}+cpu"
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    wheel = folder / "torch" / f"torch-{version}-{tag}-{tag}-linux_x86_64.whl"
    if wheel.exists():
        return
    wheel.parent.mkdir(parents=True, exist_ok=True)
    partial = wheel.with_suffix(".partial")
    information = f"torch-{version}.dist-info"
    with zipfile.ZipFile(partial, "w") as archive:  # stored: it travels no further than to this machine
        record = []
        for name, content in _files(torch, version, information):
            archive.writestr(name, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(content)}\n")
        archive.writestr(f"{information}/RECORD", "".join([*record, f"{information}/RECORD,,\n"]))
    partial.rename(wheel)


def _files(torch: Distribution, version: str, information: str) -> Iterator[tuple[str, bytes]]:
    for path in torch.files or []:
        name, source = path.as_posix(), Path(str(path.locate()))
        if name.startswith("..") or "__pycache__" in name or name.endswith(("/RECORD", "/INSTALLER", "/REQUESTED")):
            continue
        if name.endswith(".dist-info/METADATA"):
            lines = source.read_text().splitlines(keepends=True)
            kept = [line for line in lines if not (line.startswith("Requires-Dist: ") and FOREIGN.match(line[15:]))]
            yield f"{information}/METADATA", re.sub(r"(?m)^Version: .*", f"Version: {version}", "".join(kept)).encode()
        elif name == "torch/version.py":
            text = re.sub(r"(?m)^__version__ = .*", f"__version__ = '{version}'", source.read_text())
            yield name, re.sub(r"(?m)^(cuda: .*) = .*", r"\1 = None", text).encode()
        else:
            yield re.sub(r"^[^/]*\.dist-info/", f"{information}/", name), source.read_bytes()
    packages = Path(str(torch.locate_file("nvidia")))
    wanted = _needed(Path(str(torch.locate_file("torch/lib"))))
    for library in sorted(packages.glob("*/lib/*.so*")):
        if library.name in wanted:
            content = library.read_bytes() if KEPT.match(library.name) else _hollow(library)
            yield f"torch/lib/{library.name}", content


def _needed(folder: Path) -> set[str]:
    said = subprocess.run(["readelf", "-d", *folder.glob("*.so")], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"\(NEEDED\) .*\[(.+)\]", said))


def _hollow(library: Path) -> bytes:
    """A library with the symbols of another one, each under its version."""
    said = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True).stdout
    versions: dict[str, list[str]] = defaultdict(list)
    source = ["#include <stdlib.h>"]
    for line in said.splitlines():
        if (symbol := SYMBOL.match(line)) and symbol["type"] != "A":  # the names of versions
            function, data = f"void {symbol['name']}(void) {{ abort(); }}", f"char {symbol['name']}[{DATA_BYTES}];"
            source.append(function if symbol["type"] in "TWi" else data)
            versions[symbol["version"] or ""].append(symbol["name"])
    named = {version: names for version, names in versions.items() if version}
    script = "".join(f"{version} {{ global: {'; '.join(names)}; }};\n" for version, names in named.items())
    return _compiled("\n".join(source), script, library.name)


def _compiled(source: str, script: str, name: str) -> bytes:
    with tempfile.TemporaryDirectory() as place:
        code, versions, made = (Path(place, each) for each in ("library.c", "versions", "made.so"))
        code.write_text(source)
        versions.write_text(script)
        options = [f"-Wl,--version-script={versions}"] if script else []
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-w", "-fno-builtin", f"-Wl,-soname,{name}", *options, "-o", made, code],
            check=True,
        )
        return made.read_bytes()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
