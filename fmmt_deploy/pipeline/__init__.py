"""From dialogues to predictions: batches are planned, prepared ahead in threads, and run through a bundle's engines."""
