"""Stage 1: the video encoder and the warping decoder."""
