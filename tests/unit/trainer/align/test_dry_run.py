"""The dry run sees what a run would see, for every method, with and without the base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kindling_api.errors import DataError, SpecError
from kindling_api.v1alpha1.alignment_run import AlignmentRunSpec
from kindling_storage import open_store
from kindling_trainer.align.check import Findings
from kindling_trainer.align.dry_run import BaseTokens, dry_run, stand_in

BASE = BaseTokens(stand_in().to_str().encode(), template=None, context=32)
PAIR = {"prompt": "Why?", "chosen": "So.", "rejected": "No!"}
LONG = PAIR | {"chosen": "x" * 40}


def looked(folder: Path, method: dict[str, Any], *records: dict[str, Any], base: BaseTokens | None = BASE) -> Findings:
    (folder / "data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    spec = {"base": {"uri": "b"}, "method": method, "data": [{"uri": f"{folder}/data.jsonl"}], "training": {"steps": 1}}
    return dry_run(AlignmentRunSpec.model_validate(spec, strict=False), base, open_store)


@pytest.mark.parametrize(
    ("method", "tokens", "counted"),
    [
        ({"sft": {}}, 11, 4),
        ({"sft": {"trainOn": "all"}}, 11, 11),
        ({"dpo": {}}, 22, 8),
        ({"reward": {}}, 22, 8),
        ({"grpo": {"rollout": {"maxNewTokens": 8}, "rewards": [{"exactAnswer": {}}]}}, 7, 0),
    ],
)
def test_every_method_counts_what_it_learns(tmp_path: Path, method: dict[str, Any], tokens: int, counted: int) -> None:
    found = looked(tmp_path, method, PAIR)
    assert (found.forms, found.kept, found.tokens, found.counted) == (["preference"], 1, tokens, counted)


def test_what_does_not_fit_is_dead_unless_the_base_is_not_there_yet(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 of 2 records that do not fit"):
        looked(tmp_path, {"sft": {}}, LONG, LONG)
    assert looked(tmp_path, {"sft": {}}, LONG, base=None).kept == 1


def test_a_template_of_the_base_goes_before_the_default(tmp_path: Path) -> None:
    endless = "{% for message in messages %}{{ message.content }}{% endfor %}"
    with pytest.raises(SpecError, match="no special token at the end"):
        looked(tmp_path, {"sft": {}}, PAIR, base=BaseTokens(BASE.tokenizer, endless, 32))
