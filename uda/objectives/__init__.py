"""What is minimized: one file per idea, found by registry.py."""
