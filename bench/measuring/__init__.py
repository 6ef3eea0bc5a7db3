"""What the benchmarks share: a fair clock, and a report."""
