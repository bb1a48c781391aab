"""From a photograph and a residual to a video."""
