"""What the demo applies."""

import pytest

from dev.demo import hub
from dev.demo.objects import model_name, subject
from rerank_api.api_key import APIKey
from rerank_api.effective import effective
from rerank_api.model_deployment import ModelDeployment


def test_by_default_the_two_example_files() -> None:
    chosen = subject(None)
    assert [path.name for path in chosen.files] == ["01-model.yaml", "02-api-key.yaml"]
    assert (chosen.model_name, chosen.secret_name) == ("minilm", "search-key")


@pytest.mark.parametrize("repo", [None, "BAAI/bge-reranker-v2-m3"])
def test_a_model_that_was_scaled_to_zero_starts_again(repo: str | None) -> None:
    """Applying it says how many replicas there are to be: a default would leave a 0 of `kubectl scale`."""
    assert subject(repo).model["spec"]["replicas"] == 1


@pytest.mark.parametrize("repo", ["BAAI/bge-reranker-v2-m3", "org/" + "Long.Name_" * 12])
def test_another_model_gets_a_key_of_its_own(repo: str) -> None:
    chosen = subject(repo)
    assert chosen.files == ()
    model = ModelDeployment.model_validate(chosen.model)
    key = APIKey.model_validate(chosen.key)
    assert model.spec.model.hugging_face is not None
    assert model.spec.model.hugging_face.repo == repo
    assert effective(model.spec).resources.gpu.count == 0
    assert key.spec.models == [chosen.model_name]
    for name in (chosen.model_name, chosen.secret_name, key.metadata.name):
        assert len(name) <= 63
        assert name == name.lower().strip("-")


def test_names_are_the_repository_s() -> None:
    assert model_name("BAAI/bge-reranker-v2-m3") == "bge-reranker-v2-m3"
    assert model_name("jinaai/Jina_Reranker.v2") == "jina-reranker-v2"


def test_the_hub_is_the_one_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB", "demo")
    assert hub.choose() == hub.DEMO
    monkeypatch.setenv("HUB", "http://hub.example.com")
    assert hub.choose() == "http://hub.example.com"


def test_without_a_hub_the_demo_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HUB", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert hub.choose() == hub.DEMO
