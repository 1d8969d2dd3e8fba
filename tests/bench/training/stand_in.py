"""Stands in for model/T6.py of the authors' repository: the same interface, names and layout of weights; not theirs."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers.configuration_utils import PretrainedConfig


class Rotary(nn.Module):
    seq_len_cached = None

    def __init__(self, dim):
        super().__init__()
        self.frequencies = 10000.0 ** -(torch.arange(0, dim, 2) / dim)

    def forward(self, x):
        if x.shape[1] != self.seq_len_cached:
            self.seq_len_cached = x.shape[1]
            angles = torch.outer(torch.arange(x.shape[1]), self.frequencies).to(x.device)
            self.tables = angles.cos().bfloat16()[:, None], angles.sin().bfloat16()[:, None]
        return self.tables

    def rotate(self, x):
        cos, sin = self(x)
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cos + second * sin, second * cos - first * sin), dim=-1).type_as(x)


class Factors(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads, self.size, width = config.n_head, config.head_dim, config.n_embd
        self.ranks = {"q": config.q_rank, "k": config.rank, "v": config.rank}
        for letter, rank in self.ranks.items():
            setattr(self, f"W_A_{letter}", nn.Linear(width, self.heads * rank, bias=False))
            setattr(self, f"W_B_{letter}", nn.Linear(width, rank * self.size, bias=False))
        self.rotary = Rotary(self.size)

    def forward(self, x):
        whole = []
        for letter, rank in self.ranks.items():
            a = getattr(self, f"W_A_{letter}")(x).unflatten(-1, (self.heads, rank))
            b = getattr(self, f"W_B_{letter}")(x).unflatten(-1, (rank, self.size))
            b = b if letter == "v" else self.rotary.rotate(b)
            whole.append((a @ b / rank).transpose(1, 2))
        return whole


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.c_qkv = Factors(config)
        self.c_proj = nn.Linear(config.n_head * config.head_dim, config.n_embd, bias=False)
        nn.init.zeros_(self.c_proj.weight)

    def forward(self, x):
        heads = F.scaled_dot_product_attention(*self.c_qkv(x), is_causal=True)
        return self.c_proj(heads.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.c_fc1, self.c_fc2 = (nn.Linear(width, 8 * width // 3, bias=False) for _ in range(2))
        self.c_proj = nn.Linear(8 * width // 3, width, bias=False)

    def forward(self, x):
        return self.c_proj(F.silu(self.c_fc1(x)) * self.c_fc2(x))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.attn, self.mlp = Attention(config), FeedForward(config.n_embd)

    def forward(self, x):
        x = x + self.attn(F.rms_norm(x, x.shape[-1:]))
        return x + self.mlp(F.rms_norm(x, x.shape[-1:]))


class GPTConfig(PretrainedConfig):
    pass


class GPT(PreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.transformer = nn.ModuleDict({"wte": nn.Embedding(config.vocab_size, config.n_embd), "h": blocks})
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.transformer["wte"].weight = self.lm_head.weight

    def forward(self, tokens, targets):
        x = self.transformer["wte"](tokens)
        for block in self.transformer["h"]:
            x = block(x)
        logits = self.lm_head(F.rms_norm(x, x.shape[-1:])).float()
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)
