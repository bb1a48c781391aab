"""The model of moving nature: what each pixel is, how it moves, and how that is drawn."""
