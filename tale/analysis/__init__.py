"""Token elasticity, ideal budgets and monotonicity of searches (§3, §4, A.1, A.2)."""
