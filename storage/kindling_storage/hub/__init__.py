"""The Hugging Face Hub: read as a store, and pushed to."""
