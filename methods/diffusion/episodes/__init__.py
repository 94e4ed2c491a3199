"""Diffusion of whole episodes as signals of many channels (EAQ, Sec. 3)."""
