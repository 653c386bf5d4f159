"""How expert sets are organised: domains, levels, shared units, places in the model, thresholds."""
