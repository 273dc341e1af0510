"""Learns the classifier from labelled texts. Only the command line imports it: it needs SciPy."""
