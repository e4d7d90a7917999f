"""Base models, adapters, and the LightningModules around them."""
