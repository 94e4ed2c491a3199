"""Training, measuring and shipping behaviour policies: the only place where an online learner meets a task."""
