"""Networks that come with their files only: no preset names them."""
