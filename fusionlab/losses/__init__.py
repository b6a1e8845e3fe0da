"""Losses shared by the methods; each file one idea."""
