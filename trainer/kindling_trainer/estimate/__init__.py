"""What a run will need, before it starts: memory, sizes, a pipeline's schedule. Without torch."""
