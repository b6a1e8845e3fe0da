"""Noise and how to take it away: EDM's levels and solvers, exact mixtures, consistency training."""
