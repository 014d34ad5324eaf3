"""A server compared with itself: by its URL, and as the upstream of a policy."""

import shutil
from pathlib import Path

import pytest

from gateway.parity.aspects import Aspect
from gateway.parity.policy_side import PolicySide
from gateway.parity.url_side import UrlSide
from tests.gateway.parity.places import compared, prompt
from tests.llama_cpp_server import llama_cpp_server

DEV = Path(__file__).parents[3] / "policies" / "dev"


@pytest.mark.slow
async def test_a_server_that_counts_no_streams_is_like_itself(tmp_path: Path) -> None:
    shutil.copytree(DEV, tmp_path / "policy")
    (tmp_path / "scratch").mkdir()
    with llama_cpp_server() as base_url:
        engine = f'[laptop]\nkind = "remote"\nbase_url = "{base_url}"\n'
        (tmp_path / "policy" / "engines.toml").write_text(engine)
        policy = PolicySide(
            tmp_path / "policy", "starter", name="policy", scratch=tmp_path / "scratch"
        )
        report = await compared(
            [policy, UrlSide(base_url, "starter", name="url")], [prompt("Count from 1 to 9.")]
        )

    assert report.holds
    findings = report.comparisons[0].findings[0]
    assert findings[Aspect.TEXT].agrees
    assert findings[Aspect.PROMPT_TOKENS].agrees is None
