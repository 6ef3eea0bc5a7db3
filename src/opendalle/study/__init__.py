"""Re-testing what the papers claim, on models and pictures small enough to do it again."""
