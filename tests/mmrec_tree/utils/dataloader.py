import random

import numpy as np
import torch
from scipy.sparse import coo_matrix


class Loader:
    def __init__(self, config, dataset, size, shuffle):
        self.config, self.dataset, self.step, self.shuffle = config, dataset, size, shuffle
        self.device = config["device"]
        self.pr = self.inter_pr = 0

    def __iter__(self):
        if self.shuffle:
            self.dataset.shuffle()
        return self

    def __next__(self):
        if self.pr >= self.end():
            self.pr = self.inter_pr = 0
            raise StopIteration
        return self._next()


class TrainLoader(Loader):
    def __init__(self, config, dataset):
        super().__init__(config, dataset, config["batch_size"], True)
        self.first = dataset.df
        self.all_items = sorted(dataset.df["item"].unique().tolist())
        self.history_items_per_u = {user: set(part["item"]) for user, part in dataset.df.groupby("user")}

    def pretrain_setup(self):
        self.dataset = self.dataset.copy(self.first)
        random.shuffle(self.all_items)

    def inter_matrix(self, form="coo"):
        df = self.first
        ones = np.ones(len(df), dtype=np.float32)
        return coo_matrix((ones, (df["user"].values, df["item"].values)), shape=(70, 60))

    def end(self):
        return len(self.dataset)

    def _next(self):
        return self._get_neg_sample() if self.config["negatives"] else self._get_non_neg_sample()

    def _get_neg_sample(self):
        rows = self.dataset[self.pr : self.pr + self.step]
        self.pr += self.step
        users = torch.tensor(rows["user"].values).long()
        items = torch.tensor(rows["item"].values).long()
        negatives = self._sample_neg_ids(rows["user"])
        return torch.stack([users, items, negatives]).to(self.device)

    def _get_non_neg_sample(self):
        rows = self.dataset[self.pr : self.pr + self.step]
        self.pr += self.step
        return torch.stack([torch.tensor(rows[name].values).long() for name in ("user", "item")]).to(self.device)

    def _sample_neg_ids(self, u_ids):
        found = []
        for user in u_ids:
            item = random.sample(self.all_items, 1)[0]
            while item in self.history_items_per_u[user]:
                item = random.sample(self.all_items, 1)[0]
            found.append(item)
        return torch.tensor(found).long()


class EvalLoader(Loader):
    def __init__(self, config, dataset, train):
        super().__init__(config, dataset, config["eval_batch_size"], False)
        wanted = dataset.df.groupby("user")["item"]
        known = train.df.groupby("user")["item"]
        users = list(dataset.df["user"].unique())
        self.eval_items_per_u = [wanted.get_group(user).values for user in users]
        self.eval_len_list = np.array([len(items) for items in self.eval_items_per_u])
        seen = [known.get_group(user).values for user in users]
        self.train_pos_len_list = [len(items) for items in seen]
        rows = np.repeat(np.arange(len(users)), self.train_pos_len_list)
        self.pos_items_per_u = torch.from_numpy(np.stack([rows, np.concatenate(seen)]))
        self.eval_u = torch.tensor(users)

    def end(self):
        return len(self.eval_u)

    def _next(self):
        n = sum(self.train_pos_len_list[self.pr : self.pr + self.step])
        users = self.eval_u[self.pr : self.pr + self.step]
        mask = self.pos_items_per_u[:, self.inter_pr : self.inter_pr + n].clone()
        mask[0] -= self.pr
        self.inter_pr += n
        self.pr += self.step
        return [users, mask]

    def get_eval_items(self):
        return self.eval_items_per_u

    def get_eval_len_list(self):
        return self.eval_len_list

    def get_eval_users(self):
        return self.eval_u
