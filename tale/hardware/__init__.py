"""Memory and peak FLOP/s of devices."""
