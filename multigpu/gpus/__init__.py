"""GPU models: what is known of them, and hosts that are only thought of."""
