"""Where ports meet the world."""
