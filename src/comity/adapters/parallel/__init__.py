"""Work over more than one core."""
