"""The PyTorch reference model as an engine."""
