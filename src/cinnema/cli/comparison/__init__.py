"""Blind pairs of videos: which of two does somebody choose, and how sure is that."""
