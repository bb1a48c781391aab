"""Synthesis of videos from a photograph and a residual."""
