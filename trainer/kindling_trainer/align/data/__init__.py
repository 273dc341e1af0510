"""Alignment data: sources, formats, checks, tokens. Without torch."""
