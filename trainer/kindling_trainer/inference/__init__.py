"""Text from a model: sampling, a KV-cached decoding loop, and continuous batching."""
