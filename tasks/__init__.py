"""Tasks: environments, their specifications, offline datasets and behaviour policies. Imports nothing of ours."""
