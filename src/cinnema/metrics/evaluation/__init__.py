"""`cinnema evaluate`: what a model is worth, beside baselines, by protocols that are told."""
