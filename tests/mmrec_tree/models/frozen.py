"""Frozen item graphs: one from the helpers, one inline; feature tables that are trained; a normalisation of its own."""

import numpy as np
import scipy.sparse as sp
import torch
from common.recommender import Recommender
from torch import nn
from torch.nn import functional as F
from utils.utils import build_knn_normalized_graph, build_sim


class Frozen(Recommender):
    def __init__(self, config, loader):
        super().__init__(config, loader)
        self.adj = self._tensor(self.get_adj_mat())
        self.R = self._tensor(self.R)
        self.image_table = nn.Embedding.from_pretrained(self.image, freeze=False)
        self.text_table = nn.Embedding.from_pretrained(self.text, freeze=False)
        self.image_layer, self.text_layer = nn.Linear(40, 8), nn.Linear(24, 8)
        sim = build_sim(self.image_table.weight.detach())
        self.image_graph = build_knn_normalized_graph(sim, topk=4, is_sparse=True, norm_type="sym")
        self.text_graph = self.inline(self.text_table.weight.detach())

    def get_adj_mat(self):
        whole = sp.lil_matrix((self.n_nodes, self.n_nodes), dtype=np.float32)
        whole[: self.n_users, self.n_users :] = self.interaction_matrix.tolil()
        whole[self.n_users :, : self.n_users] = self.interaction_matrix.T.tolil()
        with np.errstate(divide="ignore"):
            scale = np.power(np.asarray(whole.sum(1)), -0.5).flatten()
        scale[np.isinf(scale)] = 0.0
        whole = sp.diags(scale).dot(whole.todok()).dot(sp.diags(scale)).tolil()
        self.R = whole[: self.n_users, self.n_users :]
        return whole.tocsr()

    def _tensor(self, matrix):
        matrix = matrix.tocoo().astype(np.float32)
        index = torch.from_numpy(np.stack([matrix.row, matrix.col]).astype(np.int64))
        return torch.sparse_coo_tensor(index, torch.from_numpy(matrix.data), matrix.shape)

    def inline(self, x):
        unit = x.div(torch.norm(x, p=2, dim=-1, keepdim=True))
        sim = torch.mm(unit, unit.transpose(1, 0))
        index = torch.topk(sim, 3, dim=-1)[1]
        size = sim.size()
        rows = torch.arange(size[0]).unsqueeze(1).expand(-1, 3).flatten()
        return torch.sparse_coo_tensor(torch.stack([rows, index.flatten()]), torch.full((rows.numel(),), 1 / 3), size)

    def views(self):
        layers = [self.nodes(), torch.sparse.mm(self.adj, self.nodes())]
        content = torch.stack(layers, dim=1).mean(dim=1, keepdim=False)
        image = self.item.weight * torch.sigmoid(self.image_layer(self.image_table.weight))
        text = self.item.weight * torch.sigmoid(self.text_layer(self.text_table.weight))
        side = torch.sparse.mm(self.image_graph, image) + torch.sparse.mm(self.text_graph, text)
        return content, torch.cat([torch.sparse.mm(self.R, side), side])

    def forward(self):
        content, side = self.views()
        return self.halves(content + side)

    def InfoNCE(self, view1, view2, temperature):
        view1, view2 = F.normalize(view1, dim=1), F.normalize(view2, dim=1)
        own = ((view1 * view2).sum(1) / temperature).exp()
        every = (view1 @ view2.T / temperature).exp().sum(1)
        return -(own / every).log().mean()

    def calculate_loss(self, batch):
        (_, content), (_, side) = (self.halves(view) for view in self.views())
        return super().calculate_loss(batch) + 0.1 * self.InfoNCE(side[batch[1]], content[batch[1]], 0.2)
