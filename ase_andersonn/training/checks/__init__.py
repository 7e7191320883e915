"""Checks of labelled frames: each a function from frames to warnings, which the caller logs."""
