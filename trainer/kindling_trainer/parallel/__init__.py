"""How a model is spread over processes, applied from outside, in one order, and not at all at degree 1."""
