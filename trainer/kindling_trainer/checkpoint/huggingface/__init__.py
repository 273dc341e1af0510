"""Our models as Hugging Face folders (config.json, safetensors, tokenizer.json), both ways.

No pickle is read or written. `config` translates sizes, `weights` tensors, both purely; `folder` reads and writes.
"""

from kindling_trainer.checkpoint.huggingface.folder import (
    ChatFiles,
    export,
    read_chat_template,
    read_model,
    read_shape,
    read_stops,
    read_tokenizer,
    read_weights,
)

__all__ = [
    "ChatFiles",
    "export",
    "read_chat_template",
    "read_model",
    "read_shape",
    "read_stops",
    "read_tokenizer",
    "read_weights",
]
