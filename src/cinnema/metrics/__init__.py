"""What a video is worth, in numbers."""
