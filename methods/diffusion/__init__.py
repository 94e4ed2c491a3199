"""Diffusion over windows of observations: normalisers, noise, samplers, guidance and known entries."""
