"""Measurements: speed beside other libraries, where time and memory go, methods compared."""
