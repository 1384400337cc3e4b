"""Running a model with code of the user's: what it leaves behind, draws, shares and returns."""
