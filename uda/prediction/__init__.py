"""Networks that write files: pseudo-labels, folders of pictures, test-server exports."""
