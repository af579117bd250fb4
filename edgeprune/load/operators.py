"""Which aten ops a program may hold: functions from tensors to tensors, and nothing that reaches outside.

Among torch's own ops are some that read and write files (`aten::save`, `aten::from_file`), so the name space alone is
not enough. The rule is by schema, so that it holds for ops of torch versions to come.
"""

from __future__ import annotations

import torch

aten = torch.ops.aten

# String arguments that choose a variant of the computation; any other string (a file name) is refused.
_STRING_ARGUMENTS = {
    "padding",
    "approximate",
    "equation",
    "mode",
    "rounding_mode",
    "indexing",
    "reduce",
    "norm",
    "pad_mode",
}

_FACTORIES = {
    "zeros",
    "ones",
    "full",
    "empty",
    "arange",
    "linspace",
    "eye",
    "scalar_tensor",
    "tril_indices",
    "triu_indices",
}

# Names with a leading underscore are torch's internals, some without bounds checks; these are known and harmless.
_INTERNALS = {"_weight_norm", "_unsafe_view", "_to_copy", "_softmax", "_log_softmax", "_adaptive_avg_pool2d"}

_SYMBOLIC_SIZES = {"sym_size", "sym_numel", "sym_stride", "sym_storage_offset", "sym_is_contiguous"}

# Checks that torch.export leaves in a program; dropped, since shapes are fixed but for the batch.
ASSERTIONS = {
    "_assert_tensor_metadata",
    "_assert_scalar",
    "_assert_async",
    "sym_constrain_range",
    "sym_constrain_range_for_size",
}

_RANDOM_IN_TRAINING = {
    "dropout",
    "feature_dropout",
    "alpha_dropout",
    "feature_alpha_dropout",
    "gru",
    "lstm",
    "rnn_tanh",
    "rnn_relu",
    "rrelu",
    "scaled_dot_product_attention",
}

_DECOMPOSED = {
    "convolution",
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "_native_batch_norm_legit_functional",
    "cudnn_batch_norm",
    "native_layer_norm",
    "native_group_norm",
    "native_dropout",
    "addmm",
}


def get_op_name(target: torch._ops.OpOverload) -> str:
    """'relu' for aten.relu.default and for aten.relu_.default."""
    name = target._schema.name.partition("::")[2]
    return name if name.startswith("__") else name.rstrip("_")


def find_op_problem(target: torch._ops.OpOverload) -> str | None:
    """Why a program with this op is not accepted, or None.

    >>> find_op_problem(torch.ops.aten.conv1d.padding) is None
    True
    >>> find_op_problem(torch.ops.aten.from_file.default)
    'takes the string argument filename: it reaches outside of the program'
    """
    schema = target._schema
    if target.namespace != "aten":
        return f"comes from {target.namespace}, not from PyTorch itself"
    name = get_op_name(target)
    if name in ASSERTIONS or name in _SYMBOLIC_SIZES:
        return None
    for argument in schema.arguments:
        if "str" in str(argument.type) and argument.name not in _STRING_ARGUMENTS:
            return f"takes the string argument {argument.name}: it reaches outside of the program"
    if not schema.returns or not all("Tensor" in str(value.type) for value in schema.returns):
        return "does not return tensors: the program would depend on values"
    if name not in _FACTORIES and not any("Tensor" in str(argument.type) for argument in schema.arguments):
        return "is not a function of tensors"
    if name.startswith("_") and not name.startswith("__") and name not in _INTERNALS | _DECOMPOSED:
        return "is internal to PyTorch"
    if torch.Tag.nondeterministic_seeded in target.tags and name not in _RANDOM_IN_TRAINING | _DECOMPOSED:
        return "draws random numbers, also when the model is in eval mode"
    return None


def is_decomposed(target: torch._ops.OpOverload) -> bool:
    """Whether the op is what `run_decompositions` leaves of a layer."""
    return get_op_name(target) in _DECOMPOSED
