"""Readers of published data sets and of folders of videos, one for each layout."""
