"""Offline data: the dataset type, its views, files, cards, regimes and checks."""
