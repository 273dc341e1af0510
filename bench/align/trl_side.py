"""TRL's side of `bench.py`, run by the Python of its own environment: METHOD FOLDER OUT MICRO_BATCH CONTEXT."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

ACCUMULATION = 4


class Clock(TrainerCallback):
    """When each optimizer step began and ended, and the losses."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self._began = 0.0

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Stop it."""
        self.seconds.append(time.perf_counter() - self._began)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        """Keep the loss."""
        if "loss" in logs:
            self.losses.append(logs["loss"])


def main() -> None:
    """One epoch, with TRL's defaults but for sizes, precision and reports."""
    method, folder, out, micro_batch, context = sys.argv[1:]
    base = str(Path(folder) / "base")
    lines = (Path(folder) / "records.jsonl").read_text().splitlines()
    data = Dataset.from_list([json.loads(line) for line in lines])
    common: dict[str, Any] = {
        "output_dir": f"{folder}/trl", "per_device_train_batch_size": int(micro_batch), "num_train_epochs": 1,
        "gradient_accumulation_steps": ACCUMULATION, "use_cpu": True, "bf16": False, "report_to": [],
        "max_length": int(context), "logging_steps": 1, "save_strategy": "no", "gradient_checkpointing": False,
        "learning_rate": 2e-5, "disable_tqdm": True, "dataloader_pin_memory": False,
    }  # fmt: skip
    model, tokenizer, clock = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base), Clock()
    sides = {"sft": (trl.SFTTrainer, trl.SFTConfig), "dpo": (trl.DPOTrainer, trl.DPOConfig)}
    trainer_class, config = sides[method]
    trainer = trainer_class(
        model, args=config(**common), train_dataset=data, processing_class=tokenizer, callbacks=[clock]
    )
    trainer.train()
    found = {
        "step_seconds": clock.seconds,
        "samples_per_step": int(micro_batch) * ACCUMULATION,
        "loss": clock.losses[-1],
        "trl": trl.__version__,
    }
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
