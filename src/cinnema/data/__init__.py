"""Clips to train and evaluate on."""
