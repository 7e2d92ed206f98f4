"""A small PyTorch network, trained over several sites."""
