"""AMC: an agent learns how much each layer can lose."""
