"""Ways to adapt a network, one in each file."""
