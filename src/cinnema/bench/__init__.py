"""Measurements of speed and memory, which `cinnema bench` runs: one module for each section."""
