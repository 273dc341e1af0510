"""Reinforcement learning: PPO and GRPO over rounds of answers."""
