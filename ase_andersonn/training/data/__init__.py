"""Labelled frames: reading, tensors of labels, data sets, batches."""
