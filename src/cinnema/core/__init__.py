"""The ground floor: errors, files, weights, configuration and randomness."""
