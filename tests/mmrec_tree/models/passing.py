"""Messages over edges, written as layers of PyTorch Geometric."""

import torch
from torch_geometric.nn.conv import MessagePassing
from torch_geometric.utils import degree, softmax


class Neighbours(MessagePassing):
    def forward(self, x, edge_index):
        return self.propagate(edge_index, size=(x.size(0), x.size(0)), x=x)

    def message(self, x_j, edge_index, size):
        return x_j

    def update(self, aggr_out):
        return aggr_out


class Weighted(MessagePassing):
    def forward(self, x, edge_index, weight):
        self.weight = weight
        return self.propagate(edge_index, x=x)

    def message(self, x_j):
        return x_j * self.weight


class Attention(MessagePassing):
    def forward(self, x, edge_index):
        return self.propagate(edge_index, size=None, x=x)

    def message(self, x_i, x_j, size_i, edge_index_i):
        self.alpha = softmax(torch.mul(x_i, x_j).sum(dim=-1), edge_index_i, num_nodes=size_i)
        return x_j * self.alpha.view(-1, 1)


class Normalised(MessagePassing):
    def forward(self, x, edge_index):
        return self.propagate(edge_index, size=(x.size(0), x.size(0)), x=x)

    def message(self, x_j, edge_index, size):
        source, destination = edge_index
        scale = (degree(source, size[0], dtype=x_j.dtype) + 1) ** -0.5
        return (scale[source] * scale[destination]).view(-1, 1) * x_j


class Bent(MessagePassing):
    """Its messages are not linear in `x_j`."""

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x)

    def message(self, x_j):
        return torch.tanh(x_j)


class Widest(MessagePassing):
    """Its sum is its own."""

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x)

    def aggregate(self, inputs, index, dim_size=None):
        return inputs.new_zeros(dim_size, inputs.shape[1]).index_add(0, index, inputs.abs())


class Growing(MessagePassing):
    """Its messages depend on how often it was called."""

    calls = 0

    def forward(self, x, edge_index):
        return self.propagate(edge_index, x=x)

    def message(self, x_j):
        self.calls += 1
        return x_j * float(self.calls)
