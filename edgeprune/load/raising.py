"""From a `torch.export` program back to trainable modules.

A training-IR program is a flat list of aten calls over parameters. Raising puts the layers back: parametric ops become
`nn.Conv*`, `Linear`, `BatchNorm*`, `LayerNorm`, `GroupNorm`, `PReLU`, `GRU`, `LSTM` and dropout modules under the names
of the user's own modules, all other ops stay as pure aten calls. The result computes the same to the bit in eval and in
train mode, follows `train()` and `eval()`, and can be exported again, with no code of the user.
"""

from __future__ import annotations

import keyword
import operator
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from edgeprune.errors import UnsupportedModelError
from edgeprune.load.operators import ASSERTIONS, find_op_problem, get_op_name, is_decomposed
from edgeprune.load.raising_batch import check_batch_free, free_batch_size, read_constant_size
from edgeprune.load.raising_layers import LAYERS, LayerCall, NotALayer, ProgramState, bind_arguments
from edgeprune.load.raising_modes import compare_modes
from edgeprune.load.raising_writes import MemoryMap, find_functional_twin, is_write
from edgeprune.load.tracing import describe_node, export_module, silence_torch

aten = torch.ops.aten

_COPIES = (
    aten.alias.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.lift_fresh_copy.default,
    aten.positive.default,
)
_CASTS = ("to", "_to_copy", "type_as")
_END = 1 << 40  # an end index beyond any size: x[:, 1:] is exported with 2^63 - 1


def raise_program(program: ExportedProgram) -> fx.GraphModule:
    """Raise an exported program to modules, in eval mode.

    The batch size becomes free where the program fixed it. What could not be kept is told, a line each, in
    `module.meta["raise_notes"]` (a tuple). Parameters are copies: the program stays as it is.

    Raises UnsupportedModelError (naming the node, and the user's line where known) for what has no such form: several
    inputs, dict outputs, control flow, ops that are not PyTorch's own, writes into shared memory, decomposed programs,
    samples of a batch that influence each other.
    """
    return _Raiser(program).raise_graph()


def raise_module(module: nn.Module, example: Tensor, *, compare_training: bool = True) -> fx.GraphModule:
    """Export a module (see `export_module`) and raise it.

    compare_training: export train mode too, and note what it does that eval mode doesn't: branches on `self.training`,
        frozen BatchNorms. The raised module is always the eval form with live dropout and BatchNorm.
    """
    program = export_module(module, example)
    raised = raise_program(program)
    _restore_momentum(raised, module)
    if compare_training:
        raised.meta["raise_notes"] += compare_modes(program, module, example)
    return raised


class _Raiser:
    """The state of one raising: the new graph, and the new node of each source node."""

    def __init__(self, program: ExportedProgram) -> None:
        self.output_spec = program.call_spec.out_spec
        _check_names(program)
        with silence_torch():
            # the guards of a program are Python code: never run
            self.source = program.module(check_guards=False)
        self.state = ProgramState(self.source)
        self.memory = MemoryMap(self.source.graph)
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.nodes: dict[fx.Node, fx.Node] = {}
        self.layer_names: dict[Hashable, str] = {}
        self.notes: list[str] = []

    def raise_graph(self) -> fx.GraphModule:
        input_node = self._find_input()
        for node in self.source.graph.nodes:
            if node.op == "placeholder":
                self.nodes[node] = self.graph.placeholder(str(node.target))
                self._copy_meta(node, self.nodes[node])
            elif node.op == "call_function":
                self._raise_call(node)
            elif node.op == "call_module":
                raise UnsupportedModelError(f"{describe_node(node)}: calls of submodules are not supported here")
            elif node.op == "output":
                self._raise_output(node)
        raised = fx.GraphModule(self.root, self.graph)
        raised.graph.eliminate_dead_code()
        raised.graph.lint()
        raised.recompile()
        raised.eval()
        self._note_unused_parameters(raised)
        batch, *sample_shape = map(read_constant_size, input_node.meta["val"].shape)
        if batch is not None:
            free_batch_size(raised, batch)
        sizes = [size for size in sample_shape if size is not None]
        if len(sizes) == len(sample_shape):
            check_batch_free(raised, tuple(sizes), input_node.meta["val"].dtype)
        raised.meta["raise_notes"] = tuple(dict.fromkeys(self.notes))
        return raised

    def _find_input(self) -> fx.Node:
        inputs = [node for node in self.source.graph.nodes if node.op == "placeholder"]
        if len(inputs) != 1 or not isinstance(inputs[0].meta.get("val"), Tensor):
            names = ", ".join(str(node.target) for node in inputs)
            raise UnsupportedModelError(f"the model takes the inputs ({names}); it must take one tensor")
        value = inputs[0].meta["val"]
        if value.dim() < 2 or not value.dtype.is_floating_point:
            raise UnsupportedModelError(
                f"the model's input is {value.dtype} of {value.dim()} axes; it must be float, with samples along axis 0"
            )
        return inputs[0]

    def _value(self, node: fx.Node) -> fx.Node:
        """The new node of a source node; parameters and buffers appear where they are first read."""
        if node not in self.nodes:
            name = str(node.target)
            tensor = self.state.tensors[name] if name in self.state else getattr(self.source, name)
            if not isinstance(tensor, Tensor):
                raise UnsupportedModelError(f"{name} is a {type(tensor).__name__}; the model may hold tensors only")
            _place_tensor(self.root, name, tensor)
            self.nodes[node] = self.graph.get_attr(name)
            self._copy_meta(node, self.nodes[node])
        return self.nodes[node]

    def _values(self, arguments: Any) -> Any:
        return fx.node.map_arg(arguments, self._value)

    def _raise_call(self, node: fx.Node) -> None:
        _check_supported(node)
        if self._is_bookkeeping(node):
            return
        if self._is_identity(node):
            self.nodes[node] = self._value(node.args[0])  # type: ignore[arg-type]
            return
        target: Any = node.target
        replaced: set[fx.Node] = set()
        if is_write(node):
            replaced = self.memory.check_write(node)
            target = find_functional_twin(node)
        result = self._raise_layer(node, target) or self._copy_call(node, target)
        self._copy_meta(node, result)
        for source in {node} | replaced:
            self.nodes[source] = result

    def _is_bookkeeping(self, node: fx.Node) -> bool:
        """Shape assertions, and the batch counter of a train-mode BatchNorm, which the raised module keeps itself."""
        if not isinstance(node.target, torch._ops.OpOverload):
            return False
        if get_op_name(node.target) in ASSERTIONS:
            return True
        base = node.args[0] if node.args else None
        is_counter = isinstance(base, fx.Node) and str(base.target).endswith("num_batches_tracked")
        return node.target is aten.add_.Tensor and is_counter

    def _is_identity(self, node: fx.Node) -> bool:
        target = node.target
        if target in _COPIES:
            return True
        if target in (aten.detach.default, aten.detach_.default):  # of a constant; elsewhere it stops gradients
            return self._value(node.args[0]).op == "get_attr"  # type: ignore[arg-type]
        if target is aten.slice.Tensor:
            bound = bind_arguments(aten.slice.Tensor, node)
            return (
                bound["start"] in (0, None)
                and (bound["end"] is None or _is_beyond(bound["end"]))
                and bound["step"] == 1
            )
        if isinstance(target, torch._ops.OpOverload) and get_op_name(target) in _CASTS:
            before = node.args[0].meta["val"]  # type: ignore[union-attr]
            return before.dtype == node.meta["val"].dtype
        return False

    def _raise_layer(self, node: fx.Node, target: Any) -> fx.Node | None:
        if target not in LAYERS:
            return None
        try:
            call = LAYERS[target](node, bind_arguments(target, node), self.state)
        except NotALayer as reason:
            self.notes.append(f"{describe_node(node)} stays a function call: {reason}")
            return None
        name = self._place_layer(call)
        if call.note:
            self.notes.append(f"{name}: {call.note}")
        return self.graph.call_module(name, (self._value(call.input),))

    def _place_layer(self, call: LayerCall) -> str:
        if call.key in self.layer_names:
            return self.layer_names[call.key]
        name, count = call.name or "layer", 0
        while not self._is_free(name):
            count += 1
            name = f"{(call.name or 'layer').replace('.', '_')}_{count}"
        *path, last = name.split(".")
        _make_path(self.root, path).add_module(last, call.build())
        self.layer_names[call.key] = name
        return name

    def _is_free(self, name: str) -> bool:
        """No layer stands here, above or below."""
        taken = self.layer_names.values()
        return not any(name == other or name.startswith(f"{other}.") or other.startswith(f"{name}.") for other in taken)

    def _copy_call(self, node: fx.Node, target: Any) -> fx.Node:
        arguments, options = self._values(node.args), self._values(node.kwargs)
        if target is aten.view.default:
            target = aten.reshape.default  # pruning may change the memory layout that a view relies on
        if target is operator.getitem and arguments[0].op == "call_module" and arguments[1] > 0:
            return self._copy_hidden_state(node, arguments)
        name = get_op_name(target) if isinstance(target, torch._ops.OpOverload) else target.__name__
        return self.graph.create_node("call_function", target, arguments, options, name=name)

    def _copy_hidden_state(self, node: fx.Node, arguments: Any) -> fx.Node:
        """aten.lstm returns (output, h, c), nn.LSTM (output, (h, c))."""
        layer, index = arguments
        if "lstm" not in str(node.args[0].target):  # type: ignore[union-attr]
            return self.graph.call_function(operator.getitem, (layer, index))
        hidden = self.graph.call_function(operator.getitem, (layer, 1))
        return self.graph.call_function(operator.getitem, (hidden, index - 1))

    def _raise_output(self, node: fx.Node) -> None:
        spec = self.output_spec
        if not spec.is_leaf() and spec.type not in (tuple, list):
            raise UnsupportedModelError(
                f"the model returns a {spec.type.__name__}; return a tensor or a tuple of tensors"
            )
        values = node.args[0]
        assert isinstance(values, (tuple, list))
        if not all(isinstance(value, fx.Node) and isinstance(value.meta.get("val"), Tensor) for value in values) or (
            not spec.is_leaf() and not all(child.is_leaf() for child in spec.children())
        ):
            raise UnsupportedModelError(
                "the model returns more than tensors; return a tensor or a flat tuple of tensors"
            )
        results = self._values(tuple(values))
        self.graph.output(results[0] if spec.is_leaf() else results)

    def _copy_meta(self, source: fx.Node, target: fx.Node) -> None:
        if "val" in source.meta:
            target.meta["val"] = source.meta["val"]

    def _note_unused_parameters(self, raised: fx.GraphModule) -> None:
        kept = {id(parameter) for parameter in raised.parameters()}
        parameters = {name: value for name, value in self.state.tensors.items() if isinstance(value, nn.Parameter)}
        unused = [name for name, value in parameters.items() if id(value) not in kept]
        if unused:
            self.notes.append(f"not used by forward() in eval mode, dropped: {', '.join(unused)}")


def _check_names(program: ExportedProgram) -> None:
    """torch writes Python source that spells these names out."""
    for name in (*program.state_dict, *program.constants):
        word = next((part for part in name.split(".") if keyword.iskeyword(part)), None)
        if word is not None:
            raise UnsupportedModelError(f"{name}: {word!r} is a Python keyword; rename this part of the model")


def _check_supported(node: fx.Node) -> None:
    """Raise UnsupportedModelError for an op that a raised program can't hold."""
    target = node.target
    if isinstance(target, torch._ops.HigherOrderOperator):
        if "set_grad_enabled" in str(target):
            raise UnsupportedModelError(
                f"{describe_node(node)}: forward() switches gradients off. Remove torch.no_grad() from forward() and "
                "set requires_grad = False on the parameters that are to stay fixed"
            )
        raise UnsupportedModelError(f"{describe_node(node)}: control flow inside the model is not supported")
    if isinstance(target, torch._ops.OpOverload):
        problem = find_op_problem(target)
        if problem is not None:
            raise UnsupportedModelError(f"{describe_node(node)}: this op {problem}; take it out of the model")
        if is_decomposed(target):
            raise UnsupportedModelError(
                f"{describe_node(node)}: the program was decomposed, which loses dropout and BatchNorm training. Save "
                "torch.export.export(model, ...) itself, without run_decompositions(); or use edgeprune.save_model"
            )
        if target is aten.instance_norm.default and node.args[3] is not None:
            raise UnsupportedModelError(
                f"{describe_node(node)}: InstanceNorm with running statistics is not supported; "
                "use track_running_stats=False, or BatchNorm"
            )
        return
    module = getattr(target, "__module__", "")
    if module in ("_operator", "math") or str(getattr(target, "__name__", "")).startswith("sym_"):
        return  # arithmetic on sizes
    raise UnsupportedModelError(f"{describe_node(node)}: not an op of PyTorch's aten set")


def _is_beyond(end: object) -> bool:
    return isinstance(end, int) and end > _END


def _make_path(root: nn.Module, path: list[str]) -> nn.Module:
    for name in path:
        if not hasattr(root, name):
            root.add_module(name, nn.Module())
        root = getattr(root, name)
    return root


def _place_tensor(root: nn.Module, name: str, tensor: Tensor) -> None:
    *path, last = name.split(".")
    owner = _make_path(root, path)
    if hasattr(owner, last):
        return
    if isinstance(tensor, nn.Parameter):
        owner.register_parameter(last, tensor)
    else:
        owner.register_buffer(last, tensor)


def _restore_momentum(raised: fx.GraphModule, module: nn.Module) -> None:
    """torch.export writes 0.0 both for momentum None and for 0.0; the module itself knows."""
    originals = dict(module.named_modules())
    resolved = []
    for name, layer in raised.named_modules():
        original = originals.get(name)
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and isinstance(original, nn.modules.batchnorm._BatchNorm):
            layer.momentum = original.momentum
            resolved.append(f"{name}: its momentum is lost")
    notes = raised.meta["raise_notes"]
    raised.meta["raise_notes"] = tuple(note for note in notes if not note.startswith(tuple(resolved)))
