"""A model that draws random numbers also when it scores."""

import torch
from common.recommender import Recommender


class Noisy(Recommender):
    def forward(self):
        return self.user.weight, self.item.weight + 0.01 * torch.rand_like(self.item.weight)


class Biased(Recommender):
    """One whose scores are no product."""

    def forward(self):
        return self.user.weight, self.item.weight

    def full_sort_predict(self, batch):
        return super().full_sort_predict(batch).sigmoid() + self.item.weight.sum(1)
