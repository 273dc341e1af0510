"""Our models as GGUF files, as llama.cpp reads them; written only.

`architecture` says what llama.cpp computes and under which keys, `tensors` translates names and arrangement,
`tokenizer` the tokenizer; `file` reads a Hugging Face folder and writes.
"""

from kindling_trainer.checkpoint.gguf.file import FILE, write_gguf

__all__ = ["FILE", "write_gguf"]
