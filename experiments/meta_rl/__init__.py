"""Meta-reinforcement learning: the experiment and its figures."""
