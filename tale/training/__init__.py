"""The training loop on Lightning Fabric, checkpoints, sharding, throughput and merging."""
