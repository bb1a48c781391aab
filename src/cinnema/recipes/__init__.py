"""Full typed configurations of the shipped models."""
