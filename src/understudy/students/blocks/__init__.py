"""The chain of blocks of a network: finding it, skipping, removing and scaling its members."""
