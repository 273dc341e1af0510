"""Talking to a model over HTTP: an OpenAI-compatible endpoint and a chat page, in one process."""
