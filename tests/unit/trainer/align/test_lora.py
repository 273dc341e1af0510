"""Adapters in runs: one curve on every layout, checkpoints without the base, references without a second model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from prepared_alignment import ready, uninterrupted
from transformers import AutoModelForCausalLM

from kindling_api.errors import SpecError
from kindling_api.v1alpha1.runfile import AlignmentRunFile, read_run_file
from kindling_storage import open_store
from kindling_trainer.align.base import open_base
from kindling_trainer.align.preference.dpo import PreferenceOptimisation
from kindling_trainer.align.preference.losses import direct_preference
from kindling_trainer.align.rl.policy import whole_base
from kindling_trainer.chat.message import Message
from kindling_trainer.checkpoint.folders import Folder, checkpoint_store
from kindling_trainer.checkpoint.save import Saver
from kindling_trainer.inference.adapted import load_adapted
from kindling_trainer.inference.generate import load_model
from kindling_trainer.loop.setup import Setup
from kindling_trainer.loop.step import Stepper
from kindling_trainer.loss import token_log_probabilities
from kindling_trainer.models.lora import is_adapter
from kindling_trainer.train import _checkpoint_facts

AlignmentFactory = Callable[..., Path]

TWO, FOUR, TENSOR = ({"processesPerNode": 2}, {"processesPerNode": 4}, {"tensor": 2})
LAYOUTS: dict[str, dict[str, dict[str, Any]]] = {
    "llama": {
        "one": {},
        "fsdp2": {"resources": TWO},
        "tp2": {"resources": TWO, "parallelism": TENSOR},
        "fsdp2-tp2": {"resources": FOUR, "parallelism": TENSOR},
    },
    "gpt2": {
        "one": {},
        "fsdp2-tp2": {"resources": FOUR, "parallelism": TENSOR},
        "cp2": {"resources": TWO, "parallelism": {"context": 2}},
    },
}
FAST = {"steps": 6, "optimizer": {"adamW": {"learningRate": 3e-2}}}
ADAPTER = {"lora": {"rank": 3, "alpha": 12}}
"""A rank that no tensor parallelism divides."""
PAIRS = [{"prompt": "say", "chosen": "abcd"[n % 4] * 4, "rejected": "1234"[n // 4 % 4] * 4} for n in range(40)]
PROMPTS = [{"prompt": f"say {word}", "answer": word} for word in ("one", "two", "three", "four") * 4]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("architecture", ["llama", pytest.param("gpt2", marks=pytest.mark.exhaustive)])
def test_every_layout_trains_the_same_adapters_and_peft_loads_them(
    alignment_file: AlignmentFactory, base: Callable[..., str], runs: Any, architecture: str
) -> None:
    uri = base(architecture)
    files = {
        name: alignment_file(name=name, base_uri=uri, adapter=ADAPTER, training=FAST, **layout)
        for name, layout in LAYOUTS[architecture].items()
    }
    runs.train_in_turn(list(files.values()))
    curves = {name: runs.losses(run) for name, run in files.items()}
    assert curves["one"][-1] < curves["one"][0] - 0.1
    for name, curve in curves.items():
        assert curve == pytest.approx(curves["one"], abs=1e-5), name
    check_product(Path(runs.store(files["fsdp2-tp2"]).uri.removeprefix("file://")), uri)


def check_product(product: Path, base: str) -> None:
    """The model, with the adapters in its weights, is what `peft` makes of the base and the adapters beside it."""
    folder = product / "model"
    ours, theirs = load_model(folder), AutoModelForCausalLM.from_pretrained(base.removeprefix("file://"))
    size = ours.tokenizer.get_vocab_size()
    assert size > theirs.config.vocab_size, "the template has brought tokens"
    theirs.resize_token_embeddings(size)
    tokens = torch.arange(40)[None] * 13 % size
    with torch.no_grad():
        before = theirs(tokens).logits
        after = PeftModel.from_pretrained(theirs, product / "adapter")(tokens).logits
        torch.testing.assert_close(ours.model(tokens), after, atol=1e-4, rtol=0)
    assert (before - after).abs().max() > 0.1
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        (product / "adapter" / file).write_bytes((folder / file).read_bytes())  # as kindling export --to peft does
    place = Path(base.removeprefix("file://"))
    served = load_adapted(load_model(place), open_store(base), open_store((product / "adapter").as_uri()))
    asked = [Message("user", "b?")]
    assert served.prompt(asked) == ours.prompt(asked) and served.stops == ours.stops
    with torch.no_grad():
        torch.testing.assert_close(served.model(tokens), after, atol=1e-4, rtol=0)


def test_a_checkpoint_holds_adapters_alone_and_goes_on_from_the_base(alignment_file: AlignmentFactory) -> None:
    run = alignment_file(adapter=ADAPTER, training=FAST)
    setup = ready(run)
    train(setup, range(3))
    save(setup, step=3)
    train(setup, range(3, 5))
    again = ready(run)
    assert (again.model.embedding.weight == setup.model.embedding.weight).all()
    train(again, range(3, 5))
    folder = checkpoint_store(setup.store, Folder(3, 1))
    names = json.loads(folder.get("metadata.json"))["tensors"]
    assert names and all("lora_" in name for name in names)
    for (name, one), (_, other) in zip(setup.model.named_parameters(), again.model.named_parameters(), strict=True):
        assert one.equal(other), name
        assert one.requires_grad == is_adapter(name), name


def test_dropout_of_an_adapter_is_the_same_when_a_step_is_taken_again(alignment_file: AlignmentFactory) -> None:
    ends = []
    for dropout in (0.5, 0.5, 0.0):
        setup = ready(alignment_file(adapter={"lora": {"dropout": dropout}}, training=FAST))
        train(setup, range(2))
        ends.append(torch.cat([each.flatten() for name, each in setup.model.named_parameters() if is_adapter(name)]))
    assert ends[0].equal(ends[1]) and not ends[0].equal(ends[2])


def test_the_reference_of_dpo_is_the_policy_without_its_adapters(alignment_file: AlignmentFactory) -> None:
    """After some steps, which no cache from before them knows of; the loss is that of a second model in memory."""
    run = alignment_file(adapter=ADAPTER, training=FAST, records=PAIRS, method={"dpo": {}})
    setup, second = ready(run), ready(run)
    randomize(setup)
    objective, other = setup.objective, second.objective
    assert isinstance(objective, PreferenceOptimisation) and isinstance(other, PreferenceOptimisation)
    for batch in objective.local_batch(0, uninterrupted).micro_batches:
        with torch.no_grad():
            policy, tokens = objective._log_probabilities(batch)
            reference, _ = other._log_probabilities(batch)  # its adapters are as they began: they add nothing
            loss, shown = objective.loss(batch)
        expected = direct_preference(policy, reference, tokens, objective.method).sum()
        assert float(loss) == pytest.approx(float(expected), rel=1e-6)
        assert float(shown["rewards/margins"][0]) != 0
    save(setup, step=1)
    for path in Path(setup.store.uri.removeprefix("file://")).glob("reference-*"):
        path.unlink()
    resumed = ready(run).objective  # what the reference said is gone, and is computed again
    assert isinstance(resumed, PreferenceOptimisation)
    resumed.local_batch(1, uninterrupted)
    pairs = torch.arange(40)
    assert resumed.reference.of(pairs).margin.allclose(objective.reference.of(pairs).margin, atol=1e-6)


@pytest.mark.parametrize("method", ["ppo", "grpo"])
def test_the_penalty_is_for_leaving_the_policy_without_its_adapters(
    alignment_file: AlignmentFactory, method: str
) -> None:
    rollout = {"rollout": {"prompts": 8, "maxNewTokens": 6}, "rewards": [{"exactAnswer": {}}]}
    run = alignment_file(adapter=ADAPTER, records=PROMPTS, method={method: rollout})
    setup = ready(run)
    randomize(setup)
    rollouts: Any = setup.objective.rollouts  # type: ignore[attr-defined]
    drawn = rollouts.draw(0, uninterrupted)
    document = read_run_file(run)
    assert isinstance(document, AlignmentRunFile) and rollouts.base is rollouts.whole
    base = whole_base(open_base(document), setup.ranks.device)
    with torch.no_grad():
        logits = base(drawn.tokens)[..., : setup.vocabulary.size]
    expected = token_log_probabilities(logits / rollouts.settings.temperature, drawn.targets)
    torch.testing.assert_close(drawn.reference[drawn.mask], expected[drawn.mask], atol=1e-5, rtol=0)


def test_a_target_that_no_layer_has_is_refused(alignment_file: AlignmentFactory, base: Callable[..., str]) -> None:
    lora = {"lora": {"targets": ["up_proj", "gate_proj"]}}
    with pytest.raises(SpecError, match=r"found gate_proj; allowed: the linear layers of a gpt2 block: q_proj, k_proj"):
        ready(alignment_file(base_uri=base("gpt2"), adapter=lora))


def train(setup: Setup, steps: range) -> None:
    stepper = Stepper(setup.model, setup.optimizer, setup.objective, setup.run.spec.training, setup.ranks)
    for step in steps:
        stepper.take(setup.objective.local_batch(step, uninterrupted), step)


def save(setup: Setup, *, step: int) -> None:
    saver = Saver(
        setup.store, _checkpoint_facts(setup, 1), keep=2, group=None,
        committing=lambda: None, committed=lambda status: None,
    )  # fmt: skip
    saver.save(setup.state(), step=step, tokens=step)
    saver.wait()


def randomize(setup: Setup) -> None:
    """Adapters as after many steps."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in setup.model.named_parameters():
            if is_adapter(name):
                parameter.normal_(0, 0.3, generator=generator)
