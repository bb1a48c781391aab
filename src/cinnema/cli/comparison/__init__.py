"""Blind pairwise comparison of videos, with exact binomial statistics."""
