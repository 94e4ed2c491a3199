"""Models of single transitions: tokens, training, sampling, emission; what `synther`, `ins` and `vae` share."""
