"""The paper's experiments, each a command: flags, build, fit, evaluate, report."""

import os

# Before anything loads LAPACK: threads of its own, beside those of XLA that call it, made the QR of
# the linear baseline several times slower.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
