"""What pictures cost: prices, device-seconds, tags, budgets, bills, reports. Imports core only."""
