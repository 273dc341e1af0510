"""Tokenizers: trained, given, and fast on words that were seen before."""
