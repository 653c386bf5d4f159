"""How alike concepts are, to a model and to people: alignment, its baselines, and how they compare."""
