"""Metrics: each accumulates statistics of clips batch by batch, and returns columns of numbers."""
