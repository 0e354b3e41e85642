"""Hidden layers: capturing them, pairing them, and the adapters that learn between them."""
