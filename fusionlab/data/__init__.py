"""Pairs of images: scenes, registered datasets and folders."""
