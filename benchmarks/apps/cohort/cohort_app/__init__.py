"""A PyTorch network, trained by a sample of many users."""
