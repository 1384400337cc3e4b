"""The call forms of NNI."""
