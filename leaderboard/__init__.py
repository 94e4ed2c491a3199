"""Statistics and pages, made from run records alone. Trains nothing."""
