"""A model that draws random numbers also when it scores."""

import torch
import torch.nn.functional as F
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


class Contrasted(Recommender):
    """One whose loss contrasts two views of a batch with all items, by a temperature that it holds."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.layers, self.tau = 2, 0.3

    def ssl_all(self, one, other, every):
        one, other, every = F.normalize(one), F.normalize(other), F.normalize(every)
        total = (one @ every.T / self.tau).exp().sum(1)
        return -(((one * other).sum(1) / self.tau).exp() / total).log().sum()

    def forward(self):
        return self.user.weight, self.item.weight

    def calculate_loss(self, batch):
        one, other = self.item(batch[1]), self.item(batch[2])
        return super().calculate_loss(batch) + 0.01 * self.ssl_all(one, other, self.item.weight)

    def ssl_margin(self, one, other, every):
        return (one - other).square().sum() + every.sum() * self.tau
