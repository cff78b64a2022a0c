"""What was done to a bundle and what was found: a sealed, numbered, chained file for each command."""
