"""What TRL computes for a few dialogues and pairs, for our tests to compute again.

TRL's own trainers make the batches and the losses, on a tiny model with random weights; what is kept are the tokens,
the masks, the log-probabilities of the tokens and the losses. To be run where TRL is installed beside Kindling:

    python bench/align/trl_values.py tests/unit/trainer/align/preference/trl.json
"""

from __future__ import annotations

import json
import sys
import tempfile
from typing import Any

import torch
import transformers
import trl
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

from kindling_trainer.chat.template import DEFAULT, ChatTemplate, add_special_tokens

PAIRS = [
    ("What is two and three?", "Five.", "It is six, of course."),
    ("Is the sea salty?", "Yes, it is: rivers bring salt.", "No."),
    ("Say nothing.", "…", "Nothing!"),
]


def main() -> None:
    """Write the values into the file that is named."""
    losses = [dpo_case("sigmoid", beta) for beta in (0.1, 1.0)]
    losses += [dpo_case("ipo", beta) for beta in (0.1, 1.0)]
    losses += [reward_case(center) for center in (None, 0.05)]
    versions = {"trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
    with open(sys.argv[1], "w") as file:
        json.dump({"versions": versions, "pairs": PAIRS, "losses": losses, "sft": sft_case()}, file)
        file.write("\n")


def dpo_case(loss: str, beta: float) -> dict[str, Any]:
    """DPO's loss of a policy that differs from its reference."""
    records = [{"prompt": said("user", asked), "chosen": said("assistant", good), "rejected": said("assistant", bad)}
               for asked, good, bad in PAIRS]  # fmt: skip
    config = trl.DPOConfig(loss_type=[loss], beta=beta, **common())
    trainer = trl.DPOTrainer(
        language_model(0), ref_model=language_model(1), args=config, train_dataset=Dataset.from_list(records),
        processing_class=tokenizer(),
    )  # fmt: skip
    batch = next(iter(trainer.get_train_dataloader()))
    value = float(trainer.compute_loss(trainer.model, dict(batch)))
    mask = batch["completion_mask"][:, 1:].bool()
    policy, reference = (token_sums(model, batch, mask) for model in (trainer.model, trainer.ref_model))
    return {
        "name": f"dpo {loss} {beta}",
        "method": "dpo",
        "settings": {"loss": loss, "beta": beta},
        "tensors": {"policy": policy, "reference": reference, "tokens": mask.sum(1).float().view(2, -1).tolist()},
        "loss": value,
        "sequences": sequences(batch, batch["completion_mask"] == 1),
    }


def reward_case(center: float | None) -> dict[str, Any]:
    """The loss of a reward model."""
    records = [
        {
            field: said("user", asked) + said("assistant", answer)
            for field, answer in (("chosen", good), ("rejected", bad))
        }
        for asked, good, bad in PAIRS
    ]
    config = trl.RewardConfig(center_rewards_coefficient=center, **common())
    torch.manual_seed(2)
    model = LlamaForSequenceClassification(sizes(num_labels=1))
    trainer = trl.RewardTrainer(model, config, train_dataset=Dataset.from_list(records), processing_class=tokenizer())
    batch = next(iter(trainer.get_train_dataloader()))
    value = float(trainer.compute_loss(trainer.model, dict(batch)))
    with torch.no_grad():
        rewards = trainer.model(**batch).logits.view(2, -1)
    return {
        "name": f"reward {center}",
        "method": "reward",
        "center": center or 0.0,
        "tensors": {"rewards": rewards.tolist()},
        "loss": value,
    }


def sft_case() -> dict[str, Any]:
    """The loss of dialogues of which the assistant's tokens count."""
    records = [{"messages": said("user", asked) + said("assistant", good)} for asked, good, _ in PAIRS]
    config = trl.SFTConfig(assistant_only_loss=True, **common())
    trainer = trl.SFTTrainer(
        language_model(0), config, train_dataset=Dataset.from_list(records), processing_class=tokenizer(tags=True)
    )
    batch = next(iter(trainer.get_train_dataloader()))
    value = float(trainer.compute_loss(trainer.model, dict(batch)))
    with torch.no_grad():
        logits = trainer.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    each = logits[:, :-1].log_softmax(-1).gather(2, batch["input_ids"][:, 1:, None]).squeeze(2)
    counted = batch["labels"] != -100
    return {"loss": value, "log_probabilities": each.tolist(), "sequences": sequences(batch, counted)}


def token_sums(model: torch.nn.Module, batch: dict[str, torch.Tensor], mask: torch.Tensor) -> list[list[float]]:
    """The log-probability of each answer: those chosen, and those rejected."""
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.double()
    each = logits[:, :-1].log_softmax(-1).gather(2, batch["input_ids"][:, 1:, None]).squeeze(2)
    sums: list[list[float]] = (each * mask).sum(1).view(2, -1).tolist()
    return sums


def sequences(batch: dict[str, torch.Tensor], counted: torch.Tensor) -> list[dict[str, Any]]:
    """The tokens of each sequence, without padding, and which of them count."""
    return [
        {"tokens": ids[real.bool()].tolist(), "counted": counts[real.bool()].int().tolist()}
        for ids, real, counts in zip(batch["input_ids"], batch["attention_mask"], counted, strict=True)
    ]


def said(role: str, text: str) -> list[dict[str, str]]:
    """One message."""
    return [{"role": role, "content": text}]


def common() -> dict[str, Any]:
    """One batch of all records, on the CPU."""
    return {
        "output_dir": tempfile.mkdtemp(), "per_device_train_batch_size": len(PAIRS), "use_cpu": True, "bf16": False,
        "report_to": [], "gradient_checkpointing": False, "dataloader_pin_memory": False,
    }  # fmt: skip


def language_model(seed: int) -> LlamaForCausalLM:
    """A tiny model whose logits are far from even."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(sizes())
    for weight in model.parameters():
        weight.data *= 4 if weight.dim() > 1 else 1
    return model


def sizes(**more: Any) -> LlamaConfig:
    """Of the tiny models."""
    return LlamaConfig(
        vocab_size=260, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=128, pad_token_id=259, eos_token_id=259, bos_token_id=None, **more,
    )  # fmt: skip


def tokenizer(*, tags: bool = False) -> PreTrainedTokenizerFast:
    """One token a byte, and the default template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({character: number for number, character in enumerate(alphabet)}, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    add_special_tokens(made, DEFAULT)
    source = DEFAULT if tags else ChatTemplate(DEFAULT, made).exported
    return PreTrainedTokenizerFast(
        tokenizer_object=made, chat_template=source, eos_token="<|end|>", pad_token="<|end|>"
    )


if __name__ == "__main__":
    main()
