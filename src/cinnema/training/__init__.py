"""Training of both stages: runs that resume, the training loop, losses and discriminators."""
