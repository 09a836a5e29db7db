"""Everything around an experiment: flags and config, work directory, endings, several processes."""
