"""Images of one domain with the look of another: networks that learn it, and what needs none."""
