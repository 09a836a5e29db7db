"""The paper, row by row: how far each is, and the runs that bring it further."""
