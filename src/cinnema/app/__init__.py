"""The page of `cinnema app`: a thin layer between a browser and `cinnema.synthesis.pipeline`."""
