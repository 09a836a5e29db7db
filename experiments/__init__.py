"""The paper's experiments, each a command: flags, build, fit, evaluate, report."""
