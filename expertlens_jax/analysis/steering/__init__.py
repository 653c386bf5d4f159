"""What steering does to what a model writes, and its summary over trials."""
