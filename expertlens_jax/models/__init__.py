"""From a checkpoint to a Flax module that taps its units."""
