"""What may be wrong with labels, looked at before training."""
