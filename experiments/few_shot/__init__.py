"""Few-shot image classification: the experiment, its methods, its figures."""
