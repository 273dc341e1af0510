"""What an answer is worth: by rule, by a user's function, by a reward model."""
