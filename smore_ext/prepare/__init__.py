"""From a dump of interactions to the folder that training reads: rules, splits, features, and a manifest of it all."""

from smore_ext.prepare.check import Remark, check_folder
from smore_ext.prepare.folder import Prepared, prepare
from smore_ext.prepare.rules import Rules

__all__ = ["Prepared", "Remark", "Rules", "check_folder", "prepare"]
