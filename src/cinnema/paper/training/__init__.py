"""The training of the paper's networks: stage 1, the conditioning encoder, the cINN."""
