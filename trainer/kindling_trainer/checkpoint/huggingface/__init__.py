"""Our models as Hugging Face folders (config.json, safetensors, tokenizer.json), both ways.

No pickle is read or written. `config` translates sizes, `weights` tensors, both purely; `folder` and
`tokenizer` read and write.
"""

from kindling_trainer.checkpoint.huggingface.cast import Dtype, cast
from kindling_trainer.checkpoint.huggingface.folder import export, read_model, read_shape, read_weights
from kindling_trainer.checkpoint.huggingface.tokenizer import ChatFiles, read_chat_template, read_tokenizer

__all__ = [
    "ChatFiles",
    "Dtype",
    "cast",
    "export",
    "read_chat_template",
    "read_model",
    "read_shape",
    "read_tokenizer",
    "read_weights",
]
