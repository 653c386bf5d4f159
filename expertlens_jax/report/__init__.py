"""What people look at: figures, and the run directories that hold them."""
