"""Stage 1 of what acts before a still camera: a robot's arm, a person."""
