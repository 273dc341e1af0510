"""Learning from pairs: DPO and reward models."""
