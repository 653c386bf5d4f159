"""The page to explore a run: what is read from the run, what is counted, and the site that shows it."""
