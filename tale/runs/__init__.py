"""What all commands with a run folder share."""
