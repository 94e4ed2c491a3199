"""Learners that need an environment: they make the behaviour policies, and are not part of the benchmark."""
