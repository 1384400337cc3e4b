"""Pruned models for other runtimes: ONNX, torch.export, OpenVINO, ExecuTorch and llama.cpp.

Nothing is imported from here: `prune_core.export(model, "model.gguf")` finds what it needs.
"""
