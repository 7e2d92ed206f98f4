"""Federation and site files: TOML in, frozen models out, all faults at once."""
