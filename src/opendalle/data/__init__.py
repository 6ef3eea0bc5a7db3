"""Picture and caption sets, their order, and batches of them."""
