"""Diffusion models of multi-agent windows: the process, its training, and the fitted model."""
