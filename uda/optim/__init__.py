"""All that moves weights: optimizers, schedules, the mean teacher, and their settings."""
