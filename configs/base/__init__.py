"""Values and checks that several configs share."""
