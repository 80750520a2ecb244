"""What scripts/power-cut consists of."""
