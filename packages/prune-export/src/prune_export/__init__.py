"""Pruned models for other runtimes: OpenVINO, ExecuTorch and llama.cpp.

Nothing is imported from here: `prune_core.export(model, "model.gguf")` finds what it needs.
"""
