"""Layers of the classifiers."""
