"""The PyTorch reference model, and the checkpoints it is read from."""
