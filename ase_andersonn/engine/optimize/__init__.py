"""The fastest way to run a model on this machine: measured once, and kept in the user's cache."""
