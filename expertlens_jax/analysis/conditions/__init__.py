"""The same concepts under several conditions: sentence sets, seeds, checkpoints."""
