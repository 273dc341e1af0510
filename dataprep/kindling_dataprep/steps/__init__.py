"""Pure steps, from texts or columns to texts, columns or decisions; running them is the pipeline's part."""
