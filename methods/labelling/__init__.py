"""Who plays best in a window: oracles that say it for some windows, and a small network that says it for all."""
