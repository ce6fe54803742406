import numpy as np
import torch


def _recall(hits, lengths):
    return (hits.cumsum(1) / lengths[:, None]).mean(0)


def _recall2(hits, lengths):
    return hits.cumsum(1).sum(0) / lengths.sum()


def _precision(hits, lengths):
    return (hits.cumsum(1) / np.arange(1, hits.shape[1] + 1)).mean(0)


def _ndcg(hits, lengths):
    discount = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
    ideal = np.stack([np.cumsum(discount * (np.arange(hits.shape[1]) < n)) for n in lengths])
    return ((hits * discount).cumsum(1) / ideal).mean(0)


def _map(hits, lengths):
    places = np.arange(1, hits.shape[1] + 1)
    precision = hits.cumsum(1) / places
    best = np.minimum(places, np.minimum(lengths, hits.shape[1])[:, None])
    return ((precision * hits).cumsum(1) / best).mean(0)


METRICS = {"recall": _recall, "recall2": _recall2, "precision": _precision, "ndcg": _ndcg, "map": _map}


class TopKEvaluator:
    def __init__(self, config):
        self.config = config
        self.metrics = [name.lower() for name in config["metrics"]]
        self.topk = config["topk"]
        self.save_recom_result = False

    def evaluate(self, batch_matrix_list, eval_data, is_test=False, idx=0):
        ranked = torch.cat(batch_matrix_list).numpy()
        items = eval_data.get_eval_items()
        hits = np.array([[item in wanted for item in row] for wanted, row in zip(items, ranked, strict=True)])
        values = self._calculate_metrics(eval_data.get_eval_len_list(), hits)
        return {
            f"{name}@{k}": round(value[k - 1], 4)
            for name, value in zip(self.metrics, values, strict=True)
            for k in self.topk
        }

    def _calculate_metrics(self, lengths, hits):
        return [METRICS[name](hits, lengths) for name in self.metrics]
