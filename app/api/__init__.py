"""Wire contracts, one file each, over one predictor; with `problems`, all that knows HTTP."""
