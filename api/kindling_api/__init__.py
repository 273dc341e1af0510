"""The specification: what a user may write, what a container receives, and what it hands back.

Pydantic and PyYAML only. Everyone imports this package; it imports no other of ours.
"""
