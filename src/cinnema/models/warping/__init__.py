"""The warping model, which moves the pixels of the first frame: skies and water."""
