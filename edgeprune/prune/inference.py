"""Running a PyTorch program over a set of samples."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


def predict(module: nn.Module, x: np.ndarray, batch_size: int = 256) -> np.ndarray:
    """What the model's first output gives for x (N, C, ...): (N, classes), logits or softmax as the model has it.

    Runs in eval mode, on the device of the module's parameters; its mode is put back.
    """
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    training = [(layer, layer.training) for layer in module.modules()]
    module.eval()
    try:
        outputs = []
        with torch.inference_mode():
            for start in range(0, len(x), batch_size):
                batch = torch.as_tensor(x[start : start + batch_size], dtype=torch.float32, device=device)
                result = module(batch)
                outputs.append((result[0] if isinstance(result, (tuple, list)) else result).cpu().numpy())
    finally:
        for layer, mode in training:
            layer.training = mode
    return np.concatenate(outputs)
