"""Measurements on scenes that were never trained on."""
