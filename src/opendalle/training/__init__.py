"""One training loop for every network: it knows an Objective and a source of batches, no network by name."""
