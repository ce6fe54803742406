import torch
from torch import nn
from utils.dataset import N_ITEMS, N_USERS, features


class Recommender(nn.Module):
    def __init__(self, config, loader):
        super().__init__()
        self.n_users, self.n_items, self.n_nodes = N_USERS, N_ITEMS, N_USERS + N_ITEMS
        self.device = config["device"]
        self.interaction_matrix = loader.inter_matrix()
        self.image, self.text = features()
        self.user = nn.Embedding(N_USERS, 8)
        self.item = nn.Embedding(N_ITEMS, 8)

    def pre_epoch_processing(self):
        pass

    def nodes(self):
        return torch.cat([self.user.weight, self.item.weight])

    def halves(self, nodes):
        return torch.split(nodes, [self.n_users, self.n_items])

    def forward(self):
        raise NotImplementedError

    def calculate_loss(self, batch):
        users, items = self.forward()
        user = users[batch[0]]
        margin = (user * items[batch[1]]).sum(1) - (user * items[batch[2]]).sum(1)
        return -torch.log(torch.sigmoid(margin)).mean()

    def full_sort_predict(self, batch):
        users, items = self.forward()
        return torch.matmul(users[batch[0]], items.transpose(0, 1))
