"""TRL's side of `bench.py`, run by the Python of its own environment, which needs trl and nothing of Kindling's.

python trl_side.py sft|dpo BASE RECORDS.jsonl OUT.json MICRO_BATCH ACCUMULATION CONTEXT RANK

RANK is that of adapters on all linear layers, for which it needs peft; 0 means that all weights are trained.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback


class Clock(TrainerCallback):
    """How long each optimizer step took, and what was logged of it."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.logged: list[dict[str, float]] = []
        self._began = 0.0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Stop it."""
        self.seconds.append(time.perf_counter() - self._began)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        """Keep the figures of the step; the last log is of the whole run, and has no `loss`."""
        if "loss" in logs:
            self.logged.append({name: float(value) for name, value in logs.items()})


def main() -> None:
    """One epoch, with TRL's defaults but for sizes, precision and reports."""
    method, base, records, out, micro_batch, accumulation, context, rank = sys.argv[1:]
    data = Dataset.from_list([json.loads(line) for line in Path(records).read_text().splitlines()])
    common: dict[str, Any] = {
        "output_dir": f"{out}.trainer", "per_device_train_batch_size": int(micro_batch), "num_train_epochs": 1,
        "gradient_accumulation_steps": int(accumulation), "use_cpu": True, "bf16": False, "report_to": [],
        "max_length": int(context), "logging_steps": 1, "save_strategy": "no", "gradient_checkpointing": False,
        "learning_rate": 2e-5, "disable_tqdm": True, "dataloader_pin_memory": False,
    }  # fmt: skip
    model, tokenizer, clock = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base), Clock()
    sides = {"sft": (trl.SFTTrainer, trl.SFTConfig), "dpo": (trl.DPOTrainer, trl.DPOConfig)}
    trainer_class, config = sides[method]
    adapter: dict[str, Any] = {}
    if int(rank):
        from peft import LoraConfig

        settings: dict[str, Any] = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}
        adapter["peft_config"] = LoraConfig(r=int(rank), lora_alpha=2 * int(rank), **settings)
    trainer = trainer_class(
        model, args=config(**common), train_dataset=data, processing_class=tokenizer, callbacks=[clock], **adapter
    )
    trainer.train()
    found = {
        "step_seconds": clock.seconds,
        "first": clock.logged[0],
        "last": clock.logged[-1],
        "trl": trl.__version__,
    }
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
