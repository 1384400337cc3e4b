import os

# Before the library is imported: it neither asks its hub nor tells how it is getting on.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
