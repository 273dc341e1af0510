"""The dry run sees what a run would see, for every method, with and without the base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kindling_api.errors import DataError, SpecError
from kindling_api.v1alpha1.alignment_run import AlignmentRunSpec
from kindling_storage import open_store
from kindling_trainer.align.data.check import Findings
from kindling_trainer.align.data.dry_run import BaseTokens, dry_run, stand_in
from kindling_trainer.align.data.epoch import epoch_tokens
from kindling_trainer.align.data.packing import pack

BASE = BaseTokens(stand_in(), {}, template=None, context=32)
PAIR = {"prompt": "Why?", "chosen": "So.", "rejected": "No!"}
LONG = PAIR | {"chosen": "x" * 40}


def looked(
    folder: Path, method: dict[str, Any], *records: dict[str, Any], base: BaseTokens | None = BASE, **more: Any
) -> Findings:
    (folder / "data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return dry_run(spec_of(folder, method, **more), base, open_store)


def spec_of(folder: Path, method: dict[str, Any], **more: Any) -> AlignmentRunSpec:
    data = [{"uri": f"{folder}/data.jsonl"}]
    return AlignmentRunSpec.model_validate({"base": {"uri": "b"}, "method": method, "data": data} | more, strict=False)


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


def test_a_context_of_its_own_says_what_fits_and_is_no_larger_than_the_models(tmp_path: Path) -> None:
    fits = {"prompt": "Why?", "completion": "So."}
    records, short = [fits, fits, fits | {"completion": "x" * 10}], {"context": 16}
    assert looked(tmp_path, {"sft": {}}, *records).kept == 3
    found = looked(tmp_path, {"sft": {}}, *records, training=short)
    assert (found.kept, found.sentences()) == (2, ["1 of 3 records do not fit into the context"])
    assert looked(tmp_path, {"sft": {}}, *records, training=short, base=None).kept == 3
    with pytest.raises(SpecError, match=r"training.context: found 64; allowed: at most the model's own context, 32"):
        looked(tmp_path, {"sft": {}}, *records, training={"context": 64})


def test_a_template_of_the_base_goes_before_the_default(tmp_path: Path) -> None:
    endless = "{% for message in messages %}{{ message.content }}{% endfor %}"
    with pytest.raises(SpecError, match="no special token at the end"):
        looked(tmp_path, {"sft": {}}, PAIR, base=BaseTokens(BASE.tokenizer, {}, endless, 32))


REWARDED = {"rollout": {"prompts": 4, "maxNewTokens": 8}, "rewards": [{"exactAnswer": {}}]}


@pytest.mark.parametrize(
    ("method", "windows"),
    [
        ({"sft": {}}, len(pack([length + 7 for length in range(1, 9)], 32))),
        ({"dpo": {}}, len(pack([length + 7 + 10 for length in range(1, 9)], 32))),
        ({"reward": {}}, len(pack([length + 7 + 10 + 2 for length in range(1, 9)], 32))),
        ({"grpo": REWARDED | {"groupSize": 2}}, 16),
        ({"ppo": REWARDED | {"epochs": 3}}, 24),
    ],
    ids=["packed dialogues", "pairs", "pairs that are scored", "groups of answers", "answers, three times"],
)
def test_an_epoch_is_what_the_run_packs(tmp_path: Path, method: dict[str, Any], windows: int) -> None:
    records = [PAIR | {"chosen": "y" * length} for length in range(1, 9)]
    found = looked(tmp_path, method, *records)
    assert epoch_tokens(spec_of(tmp_path, method, validation={"fraction": 0.0}), 32, found) == windows * 32


def test_without_the_base_an_epoch_is_estimated_by_bytes(tmp_path: Path) -> None:
    found = looked(tmp_path, {"sft": {}}, *[PAIR | {"chosen": "y" * 117}] * 8, base=None)
    held_out = spec_of(tmp_path, {"sft": {}}, validation={"fraction": 0.25})
    assert epoch_tokens(held_out, 32, found, bytes_per_token=4.0) == 6 * 32
