"""The command line: what a user types, and what comes back.

Nothing heavy is imported here or at the top of a command's module: torch waits until a command
that needs it has been chosen and its options make sense.
"""
