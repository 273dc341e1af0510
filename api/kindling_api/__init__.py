"""The specification: what a user may write, what a container receives, and what it hands back.

Pydantic and PyYAML only. Everyone imports this package; it imports no other of ours.
"""

__version__ = "0.2.0"
"""Of the distribution, the chart and the images: the one place where it is written, but for `Chart.yaml`."""
