"""The loop and what it stands on: batches, precision, optimizer, checkpoints, events."""
