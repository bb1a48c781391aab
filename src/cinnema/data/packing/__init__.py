"""Clips in few plain files: written by any number of processes, read by any rank."""
