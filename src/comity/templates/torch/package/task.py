"""The model and the data: a small network, on two interleaved spirals."""

import math

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

POINTS = 400


class Network(nn.Module):
    """Two coordinates in, two classes out."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 2)
        )

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        return self.layers(points)


def load_data(partition_id: int) -> tuple[TensorDataset, TensorDataset]:
    """One site's points, for training and for testing. Put your own data here."""
    random = torch.Generator().manual_seed(partition_id)
    labels = torch.randint(2, (POINTS,), generator=random)
    turn = torch.rand(POINTS, generator=random) * 1.5 * math.pi + 0.5
    angle = turn + labels * math.pi
    points = torch.stack((turn * angle.cos(), turn * angle.sin()), dim=1) / 4
    points += 0.03 * torch.randn(points.shape, generator=random)
    cut = POINTS * 4 // 5
    return TensorDataset(points[:cut], labels[:cut]), TensorDataset(points[cut:], labels[cut:])


def fit(network: Network, data: TensorDataset, epochs: int, batch: int, rate: float) -> float:
    """Trains the network in place and returns the last batch's loss."""
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    loss = torch.zeros(())
    network.train()
    for _ in range(epochs):
        for points, labels in DataLoader(data, batch_size=batch, shuffle=True):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(points), labels)
            loss.backward()
            optimizer.step()
    return loss.item()


def accuracy(network: Network, data: TensorDataset) -> float:
    """The share of points that the network gets right."""
    network.eval()
    with torch.no_grad():
        points, labels = data.tensors
        return float((network(points).argmax(dim=1) == labels).float().mean())
