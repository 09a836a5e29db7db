"""One config per experiment; variants by argument."""
