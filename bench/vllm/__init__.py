"""What vLLM costs, and what its settings are worth, on this machine."""
