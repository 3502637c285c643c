"""What a command line says. Nothing else knows of argparse."""
