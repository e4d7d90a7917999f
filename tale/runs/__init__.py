"""What every command with a run folder shares."""
