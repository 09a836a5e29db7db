"""The same training steps in other libraries."""
