"""What experts say: alignment with people, baselines and controls, and the statistics of both."""
