"""Classifiers of structures: networks, their features and their layers."""
