"""The model that warps the given picture, for natural motion: skies and water."""
