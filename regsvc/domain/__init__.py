"""What regsvc decides: pure machines and values; no I/O, no clock, no randomness."""
