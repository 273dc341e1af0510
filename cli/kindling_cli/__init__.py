"""The command line: `kindling run`, `plan`, `inspect`, `generate`, `chat` and `export`.

It resolves documents, starts the other packages as processes and draws what they report. Heavy imports (pydantic,
torch, arrow) stay inside the commands that need them, so that `kindling --help` answers at once.
"""

DEFAULT_STORE = "./kindling-store"
"""Where products are kept unless `--store` says otherwise: a folder beside the user's files."""
