"""Discriminators beside stage 1: networks, losses, and the steps that train them."""
