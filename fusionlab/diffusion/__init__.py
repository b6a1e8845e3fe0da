"""Noise and how to take it away: EDM, DDPM, consistency training, exact mixtures."""
