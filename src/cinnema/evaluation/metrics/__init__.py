"""What is measured: each measure gathers statistics of contestants and yields columns of numbers.

Every measure sees every batch and keeps sums only; the sums of several processes merge.
"""
