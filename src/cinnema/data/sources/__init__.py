"""Data sets on disk, as they are published: one reader each."""
