"""Methods that make an aligned model of a language model."""
