"""AutoCompress: search, train towards it, make small, and again."""
