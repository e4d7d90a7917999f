"""Base models, adapters, and LightningModules."""
