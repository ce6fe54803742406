import numpy as np
import pandas as pd
import torch
from utils.dataloader import EvalLoader, TrainLoader

N_USERS, N_ITEMS = 70, 60


class Settings(dict):
    """As in such trees: a name that is not there is None."""

    def __missing__(self, name):
        return None


def settings(**changes):
    return Settings(
        {
            "USER_ID_FIELD": "user",
            "ITEM_ID_FIELD": "item",
            "batch_size": 128,
            "eval_batch_size": 32,
            "topk": [3, 5],
            "metrics": ["Recall", "Recall2", "NDCG", "Precision", "MAP"],
            "seed": 7,
            "epochs": 2,
            "lr": 0.01,
            "device": torch.device("cpu"),
            "negatives": True,
            "dataset": "tiny",
            "train_batch_size": 128,
            **changes,
        }
    )


class Frame:
    """Interactions in a data frame, sliced by rows."""

    def __init__(self, df):
        self.df = df

    def copy(self, df):
        return Frame(df)

    def shuffle(self):
        self.df = self.df.sample(frac=1, replace=False).reset_index(drop=True)

    def __len__(self):
        return len(self.df)

    def __getitem__(self, rows):
        return self.df.iloc[rows]


def splits():
    """Every user has 12 items of a taste: 8 to train on, 2 for validation, 2 for test."""
    rng = np.random.default_rng(3)
    parts = [[], [], []]
    for user in range(N_USERS):
        near = (np.arange(N_ITEMS) - user) % N_ITEMS
        items = rng.choice(N_ITEMS, 12, replace=False, p=np.exp(-near / 9) / np.exp(-near / 9).sum())
        for part, chosen in zip(parts, (items[:8], items[8:10], items[10:]), strict=True):
            part += [(user, item) for item in chosen]
    return [Frame(pd.DataFrame(part, columns=["user", "item"])) for part in parts]


def features():
    """Two modalities of distinct rows."""
    generator = torch.Generator().manual_seed(11)
    return torch.randn(N_ITEMS, 40, generator=generator), torch.randn(N_ITEMS, 24, generator=generator)


def make_loaders(config):
    train, valid, test = splits()
    return TrainLoader(config, train), EvalLoader(config, valid, train), EvalLoader(config, test, train)
