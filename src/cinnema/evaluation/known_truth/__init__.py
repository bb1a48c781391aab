"""Whether a model does what its tasks promise, on clips of which the truth is known."""
