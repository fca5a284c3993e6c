"""Jina v3: reads all documents of a request in one prompt and compares their embeddings with the query's."""

from __future__ import annotations

from rerank_runtime import activation
from rerank_runtime.failure import Failure, Reason
from rerank_runtime.families import checks
from rerank_runtime.families.profile import Profile
from rerank_runtime.model_files import ModelFiles
from rerank_runtime.options import Options

ARCHITECTURES = ("JinaForRanking",)

QUERY_MARK, DOCUMENT_MARK = "<|rerank_token|>", "<|embed_token|>"
_MAX_DOCUMENTS = 64
# vLLM looks for these token ids and sizes (models/jina.py, models/config.py: JinaForRankingConfig).
_IDS = {DOCUMENT_MARK: 151_670, QUERY_MARK: 151_671}
_EMBEDDING = 512
# A quarter of what it reads: 64 documents of 500 tokens. More is only memory.
_USUAL = 32_768


def profile(files: ModelFiles, options: Options, architecture: str) -> Profile:
    """How Jina v3 is served. vLLM has the model and its prompt, so the repository's code is not needed.

    Raises:
        Failure: it cannot be, or not as asked.
    """
    checks.cross_encoder(architecture, options.method)
    checks.modules(files, architecture)
    checks.words(files, ("<|im_start|>", "<|im_end|>", QUERY_MARK, DOCUMENT_MARK))
    _check_layout(files, architecture)
    return Profile(
        family="jina-v3",
        score_range=activation.COSINE,
        longest=checks.longest(files, checks.integer(files.config, "max_position_embeddings")),
        usual=_USUAL,
        convert="none",
        caches=True,
        half="bfloat16",
        pointwise=False,
        max_documents=_MAX_DOCUMENTS,
    )


def _check_layout(files: ModelFiles, architecture: str) -> None:
    half = checks.integer(files.config, "hidden_size") // 2
    projector = files.shapes.get("projector.0.weight"), files.shapes.get("projector.2.weight")
    if projector != ((half, 2 * half), (_EMBEDDING, half)) or any(
        files.words[mark] != number for mark, number in _IDS.items()
    ):
        raise Failure(
            Reason.UNSUPPORTED_ARCHITECTURE,
            f"This {architecture} has not the layout of jina-reranker-v3 (its marks' token ids, or its "
            "projection to 512 dimensions), the one that vLLM reads.",
        )


def prompt(query: str, documents: list[str]) -> str:
    """The prompt that vLLM makes of a request (entrypoints/pooling/scoring/io_processor.py, 0.32.0:
    JinaRankingIOProcessorMixin), for counting its tokens beforehand.
    """

    def clean(text: str) -> str:
        return text.replace(QUERY_MARK, "").replace(DOCUMENT_MARK, "")

    query = clean(query)
    passages = "\n".join(
        f'<passage id="{i}">\n{clean(document)}{DOCUMENT_MARK}\n</passage>'
        for i, document in enumerate(documents)
    )
    return (
        "<|im_start|>system\n"
        "You are a search relevance expert who can determine a ranking of the passages based on how relevant "
        "they are to the query. If the query is a question, how relevant a passage is depends on how well it "
        "answers the question. If not, try to analyze the intent of the query and assess how well each "
        "passage satisfies the intent. If an instruction is provided, you should follow the instruction when "
        "determining the ranking.<|im_end|>\n<|im_start|>user\n"
        f"I will provide you with {len(documents)} passages, each indicated by a numerical identifier. "
        f"Rank the passages based on their relevance to query: {query}\n"
        f"{passages}\n<query>\n{query}{QUERY_MARK}\n</query>"
        "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
