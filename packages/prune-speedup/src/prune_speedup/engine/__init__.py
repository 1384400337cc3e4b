"""What belongs together and what can go, as arithmetic on arrays; no framework is imported."""
