"""Weight-sharing searches on one supernet: PC-NAS, BetaNAS, and one-shot training with evolution.

Names are imported when first used: the algorithms and their configurations do not need torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kfnas.oneshot.alternation import alternate
    from kfnas.oneshot.batches import Batch, Batches, TensorBatches, fixed_batches
    from kfnas.oneshot.beta_nas import BetaNAS, BetaNASConfig, StepRecord, proxyless_nas, records_as_arrays
    from kfnas.oneshot.evaluation import SupernetEvaluator, top1
    from kfnas.oneshot.evolution import EvolutionConfig, EvolutionState, pc_nas_evaluations
    from kfnas.oneshot.gates import SupernetGates
    from kfnas.oneshot.paths import Cost, Evaluator, Path, Sampler, Trainable
    from kfnas.oneshot.pc_nas import PCNASConfig, PCNASState, Potential
    from kfnas.oneshot.ranks import OneRank, ProcessGroup, Ranks
    from kfnas.oneshot.recipe import SupernetConfig
    from kfnas.oneshot.training import SupernetTraining, load_weights

_MODULES = {
    "alternation": ("alternate",),
    "batches": ("Batch", "Batches", "TensorBatches", "fixed_batches"),
    "beta_nas": ("BetaNAS", "BetaNASConfig", "StepRecord", "proxyless_nas", "records_as_arrays"),
    "evaluation": ("SupernetEvaluator", "top1"),
    "evolution": ("EvolutionConfig", "EvolutionState", "pc_nas_evaluations"),
    "gates": ("SupernetGates",),
    "paths": ("Cost", "Evaluator", "Path", "Sampler", "Trainable"),
    "pc_nas": ("PCNASConfig", "PCNASState", "Potential"),
    "ranks": ("OneRank", "ProcessGroup", "Ranks"),
    "recipe": ("SupernetConfig",),
    "training": ("SupernetTraining", "load_weights"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Batch",
    "Batches",
    "BetaNAS",
    "BetaNASConfig",
    "Cost",
    "Evaluator",
    "EvolutionConfig",
    "EvolutionState",
    "OneRank",
    "PCNASConfig",
    "PCNASState",
    "Path",
    "Potential",
    "ProcessGroup",
    "Ranks",
    "Sampler",
    "StepRecord",
    "SupernetConfig",
    "SupernetEvaluator",
    "SupernetGates",
    "SupernetTraining",
    "TensorBatches",
    "Trainable",
    "alternate",
    "fixed_batches",
    "load_weights",
    "pc_nas_evaluations",
    "proxyless_nas",
    "records_as_arrays",
    "top1",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value
