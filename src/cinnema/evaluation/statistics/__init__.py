"""Intervals by resampling source videos, and distances between sets of features."""
