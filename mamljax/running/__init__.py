"""Everything around training: checkpoints, metrics, progress, reports, plots, files."""
