"""Checkpoints that count only when whole, and the model in Hugging Face form."""
