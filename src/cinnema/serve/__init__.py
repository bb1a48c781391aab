"""The command line, the demo and export."""
