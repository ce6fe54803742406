"""Public ops. The same functions, in plain PyTorch, are in `smore_ext.reference`.

A family's file lists its ops in `__all__`; a new op edits nothing here.
"""

from smore_ext.ops import losses, neighbours, ranking, sampling, sparse, spectral, tables, transforms, views  # noqa: F401
from smore_ext.ops.losses import *
from smore_ext.ops.neighbours import *
from smore_ext.ops.ranking import *
from smore_ext.ops.sampling import *
from smore_ext.ops.sparse import *
from smore_ext.ops.spectral import *
from smore_ext.ops.tables import *
from smore_ext.ops.views import *

__all__: list[str] = []
__all__ += losses.__all__
__all__ += neighbours.__all__
__all__ += ranking.__all__
__all__ += sampling.__all__
__all__ += sparse.__all__
__all__ += spectral.__all__
__all__ += tables.__all__
__all__ += views.__all__
