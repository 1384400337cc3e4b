"""What to do with the constants that masked channels leave behind."""
