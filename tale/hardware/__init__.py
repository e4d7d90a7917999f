"""What devices have and are good at."""
