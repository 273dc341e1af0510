"""A dataset to a language model: the models, how they are laid out over processes, the loop, and checkpoints."""
