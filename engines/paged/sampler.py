"""tmp: until the kernels' own lands."""
from dataclasses import dataclass
from typing import Any
import torch
from engines.paged.kernels.sampling import sample
@dataclass
class SampledTokens:
    token_ids: Any
    logprobs: Any
class Sampler:
    def __init__(self, max_sequences, vocab_size, device):
        self.last_tokens = torch.zeros(max_sequences, dtype=torch.int64, device=device)
        self.t = torch.zeros(max_sequences); self.k=torch.zeros(max_sequences,dtype=torch.int64); self.p=torch.ones(max_sequences); self.m=torch.zeros(max_sequences); self.s=torch.zeros(max_sequences,dtype=torch.int64)
        self.special={}
    def begin(self, place, sampling, prompt, end_ids, *, generated=(), logprobs=None):
        self.t[place]=sampling.temperature or 0; self.k[place]=sampling.top_k or 0; self.p[place]=1.0 if sampling.top_p is None else sampling.top_p; self.m[place]=sampling.min_p or 0; self.s[place]=sampling.seed or 0
    def end(self, place): pass
    def is_plain(self, places): return True
    def sample_plain(self, logits, places, positions):
        return self.sample(logits, places, positions, None).token_ids
    def sample(self, logits, places, positions, mask):
        if mask is not None:
            V=logits.shape[1]; bits=((mask[:, torch.arange(V)//32] >> (torch.arange(V)%32)) & 1).bool(); logits=logits.masked_fill(~bits, float("-inf"))
        t=sample(logits, temperature=self.t[places], top_k=self.k[places], top_p=self.p[places], min_p=self.m[places], seeds=self.s[places], positions=positions)
        self.last_tokens[places]=t
        return SampledTokens(t, None)
