"""Networks, one family per file; each declares what it can be asked for."""
