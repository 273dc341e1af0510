"""The training loop: what a method gives it, its set-up, its step, and its evaluation."""
