"""The core: values in, values out. NumPy, hashing and the cipher; no I/O, clock or randomness."""
