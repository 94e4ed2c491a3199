"""Drawings: trajectories on a map, and the picture of augmented data beside the original."""
