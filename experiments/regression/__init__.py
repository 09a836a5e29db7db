"""Sinusoid regression: the averaging baselines of table 2, and the figures."""
