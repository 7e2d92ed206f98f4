"""Keys and the signed roster."""
