"""What changes the look of an image and leaves its labels."""
