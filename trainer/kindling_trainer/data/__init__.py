"""From a finished dataset to the token windows of each step."""
