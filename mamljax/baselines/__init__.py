"""The methods that meta-learning is compared with, behind the same `Learner`."""
