"""Inputs of classifiers that a structure has as numbers."""
