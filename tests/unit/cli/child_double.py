"""Stands for both real stages in fast tests: the document's name says how it goes. Plain JSON, to start at once."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


def main(run_path: str, progress_path: str) -> int:
    run, progress = json.loads(Path(run_path).read_text()), Path(progress_path)
    is_dataset = run["kind"] == "DatasetBuild"
    with open(os.environ["FAKE_STAGES_RUN"], "a") as ran:
        ran.write(f"{run['kind']}/{run['name']}\n")
    if is_dataset:
        say(progress, dataset={"stage": "reading", "percent": 50, "documents": 7})
    else:
        say(progress, training={"stage": "training", "percent": 50, "step": 5, "steps": 10, "loss": 2.0})
    print("a line of the log", file=sys.stderr, flush=True)
    match run["name"]:
        case "wrong":
            say(progress, state="Failed", failure={"reason": "UserError", "message": "spec.x: found 1"})
            return 2
        case "broken":
            raise RuntimeError("a fault of ours")
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "slow" | "stubborn":
            return wait(progress, stubborn=run["name"] == "stubborn")
    say(progress, state="Succeeded", result=finish(run, "datasets" if is_dataset else "models"))
    return 0


def finish(run: dict[str, Any], folder: str) -> dict[str, Any]:
    """Lets the name lead to a product, as the real stages do, and returns the result."""
    root, key = run["output"]["uri"], run["key"]
    product = {"uri": f"{root}/{folder}/{key[7:23]}", "digest": key}
    name = Path(f"{root.removeprefix('file://')}/names/{run['kind']}/default/{run['name']}.json")
    name.parent.mkdir(parents=True, exist_ok=True)
    name.write_text(json.dumps({**product, "key": key}))
    if folder == "models":
        return {**product, "model": f"{product['uri']}/model", "steps": 10, "tokens": 640}
    documents = {"read": 8, "kept": 7, "removed": {"exact": 1}}
    return {**product, "documents": documents, "tokens": 12_345, "vocabSize": 300}


def wait(progress: Path, stubborn: bool) -> int:
    """Works until it is told to stop; then saves, unless it is stubborn."""
    told: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: told.append(number))
    Path(os.environ["FAKE_STAGES_RUN"]).with_suffix(".pid").write_text(json.dumps(os.getpid()))
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (stubborn or not told):
        time.sleep(0.02)
    print("saved", file=sys.stderr, flush=True)
    say(progress, state="Failed", failure={"reason": "SuspendedByUser", "message": "Stopped."})
    return 128 + told[0]


def say(progress: Path, **document: Any) -> None:
    temporary = progress.with_suffix(".tmp")
    temporary.write_text(json.dumps(document))
    temporary.replace(progress)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[3]))
