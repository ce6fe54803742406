"""Public ops. The same functions, in plain PyTorch, are in `smore_ext.reference`."""

from smore_ext.ops.losses import bpr_loss, info_nce
from smore_ext.ops.neighbours import cosine_at, knn
from smore_ext.ops.ranking import masked_topk
from smore_ext.ops.sampling import sample_negatives
from smore_ext.ops.sparse import propagate, spmm
from smore_ext.ops.spectral import spectral_filter, spectrum_fusion
from smore_ext.ops.tables import factored_adam_, table_linear

__all__ = [
    "bpr_loss",
    "cosine_at",
    "factored_adam_",
    "info_nce",
    "knn",
    "masked_topk",
    "propagate",
    "sample_negatives",
    "spectral_filter",
    "spectrum_fusion",
    "spmm",
    "table_linear",
]
