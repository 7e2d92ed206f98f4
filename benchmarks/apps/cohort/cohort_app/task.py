"""The model, one user's images and one user's training: Flower app and plain loop share them."""

import functools

import torch
from torch import nn

IMAGES, CLASSES, BATCH, RATE = 50, 10, 10, 0.05


class Network(nn.Module):
    """Two convolutions and two dense layers over images of 28 by 28."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(512, 64),
            nn.ReLU(),
            nn.Linear(64, CLASSES),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores of the classes, image by image."""
        scores: torch.Tensor = self.layers(images)
        return scores


@functools.cache
def load_data(user: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One user's images and labels: a bright column says which class it is."""
    random = torch.Generator().manual_seed(user)
    labels = torch.randint(CLASSES, (IMAGES,), generator=random)
    images = torch.randn(IMAGES, 1, 28, 28, generator=random)
    images[torch.arange(IMAGES), 0, :, 4 + 2 * labels] += 2.0
    return images, labels


def fit(network: Network, images: torch.Tensor, labels: torch.Tensor) -> float:
    """One epoch of SGD; the last batch's loss."""
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE)
    loss = torch.zeros(())
    network.train()
    for batch in torch.split(torch.randperm(len(labels)), BATCH):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(images[batch]), labels[batch])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return loss.item()
