"""The command line of cinnema.

No heavy module is imported here or at the top of a command's module: torch is imported once a
command that needs it has been chosen and its options are valid.
"""
