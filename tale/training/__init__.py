"""The training loop on Lightning Fabric, and what a run of it keeps."""
