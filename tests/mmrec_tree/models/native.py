"""A model of smore_ext in this tree."""

from common.recommender import Recommender

from smore_ext.compat.mmrec import recommender


class _Base(Recommender):
    def __init__(self, config, loader):
        super().__init__(config, loader)
        self.v_feat, self.t_feat = self.image, self.text
        del self.user, self.item


SMORENative = recommender(_Base)
FREEDOMNative = recommender(_Base, "FREEDOM")
