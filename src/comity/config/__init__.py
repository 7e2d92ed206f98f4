"""Federation and site files."""
