import torch


def build_sim(x):
    unit = x / x.norm(p=2, dim=-1, keepdim=True)
    return torch.mm(unit, unit.transpose(1, 0))


def build_knn_neighbourhood(adj, topk):
    value, index = torch.topk(adj, topk, dim=-1)
    return torch.zeros_like(adj).scatter_(-1, index, value)


def compute_normalized_laplacian(adj):
    factor = torch.sum(adj, -1).pow(-0.5)
    factor[torch.isinf(factor)] = 0.0
    diagonal = torch.diagflat(factor)
    return torch.mm(torch.mm(diagonal, adj), diagonal)


def build_knn_normalized_graph(adj, topk, is_sparse, norm_type):
    value, index = torch.topk(adj, topk, dim=-1)
    if not is_sparse:
        return compute_normalized_laplacian(torch.zeros_like(adj).scatter_(-1, index, value))
    rows = [row for row in range(len(index)) for _ in index[row]]
    cols = [int(col) for row in range(len(index)) for col in index[row]]
    edges = torch.tensor([rows, cols])
    weight = value.flatten()
    degree = torch.zeros(len(index)).index_add_(0, edges[0], weight)
    if norm_type == "sym":
        factor = degree.pow(-0.5)
        weight = factor[edges[0]] * weight * factor[edges[1]]
    elif norm_type == "rw":
        weight = weight / degree[edges[0]]
    return torch.sparse_coo_tensor(edges, weight, tuple(adj.shape))
