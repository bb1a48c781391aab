"""Simulated worlds in which everything is known, deterministic by seed."""
