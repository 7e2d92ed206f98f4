"""All code that knows Flower."""
