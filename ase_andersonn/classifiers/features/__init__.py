"""Numerical features of structures as inputs of classifiers."""
