"""Blind comparison of two sets of videos in pairs, and statistics of the answers."""
