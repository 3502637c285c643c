"""The run: its session, its loop, its records."""
