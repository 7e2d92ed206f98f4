"""The Python API for notebooks and scripts: few names, typed results."""
