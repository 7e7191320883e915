"""The packaged models: weights, model cards, and their catalog."""
