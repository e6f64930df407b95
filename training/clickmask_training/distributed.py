"""Several processes on one run, started by torchrun: equal weights, different samples, averaged gradients."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist

# Its functions take the process group of their import as a default. Imported while there is one (torch's
# optimisers do so), they would keep it and its threads beyond `leave`, and those can abort the process when
# Python ends (pytorch issue 190489).
import torch.distributed.nn.functional
from torch import nn

CPU = torch.device("cpu")


def join(device: torch.device = CPU) -> None:
    """Joins the other processes, where torchrun has started any; they talk by NCCL on CUDA, else gloo."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")


def leave() -> None:
    """Waits for the others and parts: a process that ends earlier could tear down their connections."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def rank_and_world() -> tuple[int, int]:
    """This process's number and how many there are: (0, 1) alone."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def average_gradients(modules: Iterable[nn.Module]) -> None:
    """Replaces each gradient by the mean over all processes; nothing to do alone."""
    _, world = rank_and_world()
    if world == 1:
        return
    gradients = [p.grad for module in modules for p in module.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    parts = flat.div_(world).split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view(gradient.shape))


def broadcast_buffers(network: nn.Module) -> None:
    """Gives every process the first one's buffers, such as batch-norm statistics; nothing to do alone."""
    if rank_and_world()[1] > 1:
        for buffer in network.buffers():
            dist.broadcast(buffer, 0)


def total(count: int, device: torch.device = CPU) -> int:
    """The sum of a number over all processes, which talk by tensors on a device."""
    if rank_and_world()[1] == 1:
        return count
    value = torch.tensor(count, device=device)
    dist.all_reduce(value)
    return int(value)
