"""Metrics of the tasks: whether a model does what it promises, on clips whose truth is known."""
