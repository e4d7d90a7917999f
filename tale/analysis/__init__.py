"""What searches tell about token elasticity, ideal budgets and monotonicity (§3, §4, A.1, A.2)."""
