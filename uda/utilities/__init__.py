"""What every room uses and what knows no other room."""
