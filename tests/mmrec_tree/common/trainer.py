import torch
from torch import optim
from utils.topk_evaluator import TopKEvaluator


class Trainer:
    def __init__(self, config, model):
        self.config, self.model = config, model
        self.optimizer = self._build_optimizer()
        self.evaluator = TopKEvaluator(config)

    def _build_optimizer(self):
        return optim.Adam(self.model.parameters(), lr=self.config["lr"])

    def _train_epoch(self, data):
        self.model.train()
        losses = []
        for batch in data:
            self.optimizer.zero_grad()
            loss = self.model.calculate_loss(batch)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        return losses

    def _valid_epoch(self, data):
        return self.evaluate(data)

    def fit(self, train, valid, test):
        told = []
        for _ in range(self.config["epochs"]):
            self.model.pre_epoch_processing()
            losses = self._train_epoch(train)
            told.append([losses, self._valid_epoch(valid), self._valid_epoch(test)])
        return told

    @torch.no_grad()
    def evaluate(self, eval_data, is_test=False, idx=0):
        self.model.eval()
        ranked = []
        for batch in eval_data:
            scores = self.model.full_sort_predict(batch)
            scores[batch[1][0], batch[1][1]] = -1e10
            ranked.append(torch.topk(scores, max(self.config["topk"]), dim=-1)[1])
        return self.evaluator.evaluate(ranked, eval_data, is_test=is_test, idx=idx)
