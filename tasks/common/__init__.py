"""The lowest layer: errors, names, seeds and files, used by every other package."""
