import subprocess
import sys
from pathlib import Path

from engines.paged.kernels.triton_gate import next_power_of_two

ROOT = Path(__file__).parents[4]
WITHOUT_TRITON = """
import pkgutil, sys
sys.modules["triton"] = None
import torch
import engines.paged.kernels
for module in pkgutil.iter_modules(engines.paged.kernels.__path__):
    __import__(f"engines.paged.kernels.{module.name}")
from engines.paged.kernels.rms_norm import rms_norm
from engines.paged.sampler import Sampler
from engines.protocol import Sampling
sampler = Sampler(1, 40, torch.device("cpu"), end_ids=[1], pieces=[b""] * 40)
sampling = Sampling(temperature=1.0, top_k=3, presence_penalty=1.0)
sampler.begin(0, sampling, num_prompt_tokens=5)
place, position = torch.tensor([0]), torch.tensor([5])
tokens = sampler.sample(torch.randn(1, 40), place, position, None, at=[0]).token_ids
assert 0 <= int(tokens) < 40
assert rms_norm(torch.ones(2, 8), torch.ones(8), 0.0).tolist() == [[1.0] * 8] * 2
print("fine")
"""


def test_a_cpu_needs_no_triton() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TRITON], cwd=ROOT, capture_output=True, text=True
    )

    assert done.stdout == "fine\n", done.stderr


def test_the_next_power_of_two_of_one_is_one() -> None:
    assert [next_power_of_two(n) for n in (0, 1, 2, 3, 64, 65, 4096)] == [
        1, 1, 2, 4, 64, 128, 4096,
    ]  # fmt: skip
