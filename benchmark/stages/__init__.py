"""The stages of a cell: dataset, (fit,) augmented dataset, policy, evaluation. Each finds its artefact or makes it."""
