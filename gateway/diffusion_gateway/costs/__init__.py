"""What jobs cost: quotes, attempts' spending, accounts, limits."""
