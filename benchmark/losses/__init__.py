"""Pure functions that two or more algorithms share."""
