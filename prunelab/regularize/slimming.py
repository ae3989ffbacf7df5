"""Network slimming: an L1 penalty on the scales of batch normalisation."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from prunelab.memory import memory_of
from prunelab.regularize.norms import L1
from prunelab.targets import find_targets, first_names, named_parameters, unwrap


@dataclass(frozen=True)
class Slimming(L1):
    """strength · Σ|γ| over the scales γ of all batch normalisations (Liu et al. 2017): whole channels are switched off.

    A scale is one number a channel, so the soft threshold on scales removes channels. The shift β of a channel stays:
    where γ = 0 the channel still emits the constant β. `parameters` and `exclude` choose among the scales. Raises
    ValueError for a model that has none, and for a parameter that is no such scale.
    """

    def _weights(self, model: nn.Module) -> list[nn.Parameter]:
        norms = [module for module in unwrap(model).modules() if isinstance(module, _BatchNorm)]
        scales = {memory_of(norm.weight): norm.weight for norm in norms if norm.weight is not None}
        if not scales:
            raise ValueError(
                f"{type(model).__name__} has no batch normalisation with a scale, so there is nothing to slim; use "
                "GroupLasso(strength, granularity.Filter())"
            )
        names = first_names(model)
        known = {memory_of(parameter): names[name] for name, parameter in named_parameters(model).items()}
        wanted = [known[memory] for memory in scales] if self.parameters is None else self.parameters
        chosen = find_targets(model, wanted, self.exclude)
        if strangers := [target.name for target in chosen if memory_of(target.weight) not in scales]:
            raise ValueError(f"{strangers[0]!r} is not the scale of a batch normalisation; L1 takes any parameter")
        return [target.weight for target in chosen if target.weight.requires_grad]
