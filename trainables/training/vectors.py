"""Tensors that lie side by side in one piece of memory, so that what is done to all of them is one
operation: a small network has hundreds of weights, and a GPU waits for each call."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

OF_EACH_WEIGHT = ("exp_avg", "exp_avg_sq", "momentum_buffer")  # in the state of an optimizer


class Vectors:
    """Copies of `tensors`, of any shapes and memory layouts, as views of a few vectors.

    vectors: one for each dtype among the tensors, [elements of that dtype]; views: in the order of
    the tensors, with their shapes and layouts; home: for each of them the number of its vector.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        dtypes = list(dict.fromkeys(tensor.dtype for tensor in tensors))
        self.home = [dtypes.index(tensor.dtype) for tensor in tensors]
        self.layouts: list[tuple[tuple[int, ...], tuple[int, ...], int]] = []
        sizes = [0] * len(dtypes)
        for number, tensor in zip(self.home, tensors, strict=True):
            dense = torch.empty_like(tensor, device="meta")
            self.layouts.append((tuple(tensor.shape), dense.stride(), sizes[number]))
            sizes[number] += tensor.numel()
        self.vectors = [
            torch.zeros(size, dtype=dtype, device=tensors[0].device)
            for size, dtype in zip(sizes, dtypes, strict=True)
        ]
        self.views = self.split(self.vectors)
        self.fill(tensors)

    def split(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """Views of vectors like these, in the order of the tensors."""
        pairs = zip(self.home, self.layouts, strict=True)
        return [vectors[number].as_strided(*layout) for number, layout in pairs]

    @torch.no_grad()
    def fill(self, values: Sequence[Tensor]) -> None:
        """With values of the shapes of the tensors, on any device, in any layout."""
        for view, value in zip(self.views, values, strict=True):
            view.copy_(value)

    def take(self, vectors: Sequence[Tensor]) -> None:
        """The values of vectors like these."""
        for mine, other in zip(self.vectors, vectors, strict=True):
            mine.copy_(other)

    def clear(self) -> None:
        """Makes all values 0."""
        for vector in self.vectors:
            vector.zero_()

    def take_gradients(self, tensors: Sequence[Tensor], are_added: bool) -> None:
        """Those of `tensors`, which then have none; 0 for one that has none. are_added: to the
        values that are there."""
        gradients = []
        for tensor in tensors:
            gradients.append(torch.zeros_like(tensor) if tensor.grad is None else tensor.grad)
            tensor.grad = None
        if are_added:
            torch._foreach_add_(self.views, gradients)
        else:
            torch._foreach_copy_(self.views, gradients)

    # ------------------------------------------------------------ an optimizer of the vectors

    def state_of_each(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """The state of an optimizer of the vectors, as one of the single tensors would give it: the
        same on every device, and what older versions wrote."""
        state = optimizer.state_dict()
        of_vectors: dict[int, dict[str, Any]] = state["state"]
        of_each: dict[int, dict[str, Any]] = {}
        if of_vectors:
            for n, number in enumerate(self.home):
                of_each[n] = dict(of_vectors[number])
                if "step" in of_each[n]:  # each has a count of its own
                    of_each[n]["step"] = of_each[n]["step"].clone()
            for name in OF_EACH_WEIGHT:
                if of_vectors[0].get(name) is not None:
                    vectors = [of_vectors[number][name] for number in range(len(self.vectors))]
                    for n, view in enumerate(self.split(vectors)):
                        of_each[n][name] = view
        numbers = list(range(len(self.views)))
        return {"state": of_each, "param_groups": [state["param_groups"][0] | {"params": numbers}]}

    def load_state_of_each(self, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
        """What `state_of_each` gave; a tensor that it lacks never had a gradient."""
        of_each: dict[int, dict[str, Any]] = state["state"]
        of_vectors: dict[int, dict[str, Any]] = {}
        for n, of_one in of_each.items():
            of_vector = of_vectors.setdefault(self.home[n], dict(of_one))
            for name in OF_EACH_WEIGHT:
                if of_one.get(name) is None:
                    continue
                if of_vector[name] is of_one[name]:  # the first one that is met
                    of_vector[name] = torch.zeros_like(self.vectors[self.home[n]])
                of_vector[name].as_strided(*self.layouts[n]).copy_(of_one[name])
        numbers = list(range(len(self.vectors)))
        groups = [state["param_groups"][0] | {"params": numbers}]
        optimizer.load_state_dict({"state": of_vectors, "param_groups": groups})
