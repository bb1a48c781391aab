"""Distances between sets of features, from statistics that are gathered clip by clip."""
