"""Divide a large network into blocks, teach each block alone, and recombine under a budget."""
