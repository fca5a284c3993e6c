"""How each model card puts a prompt together, in the pieces that it tokenises.

Written after the cards' and libraries' own code, apart from the templates that are tested against it:
Qwen3-Reranker (card: `format_instruction`, `prefix_tokens`, `suffix_tokens`), mxbai-rerank 0.1.6
(`MxbaiRerankV2.prepare_inputs`, `concat_input_ids`), FlagEmbedding 1.4.2 (`FlagLLMReranker`),
llama-nemotron-rerank (card: `prompt_template`), jina-reranker-v3 (`modeling.py`: `format_docs_prompts_func`).
"""

from __future__ import annotations


def qwen3(query: str, document: str, instruction: str | None) -> list[str]:
    if instruction is None:
        instruction = "Given a web search query, retrieve relevant passages that answer the query"
    prefix = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
        'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    )
    suffix = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    return [prefix, f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}", suffix]


def mxbai(query: str, document: str, instruction: str | None) -> list[str]:
    separator = "\n"
    asked = f"query: {query}"
    if instruction:
        asked = separator.join([f"instruction: {instruction}", asked])
    task = (
        "You are a search relevance expert who evaluates how well documents match search queries. For each "
        "query-document pair, carefully analyze the semantic relationship between them, then provide your "
        "binary relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
    )
    prefix = (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n"
    )
    return [
        prefix,
        asked,
        separator,
        f"document: {document}",
        separator,
        task,
        "<|im_end|>\n<|im_start|>assistant\n",
    ]


def gemma(query: str, document: str, _instruction: str | None) -> list[str]:
    prompt = (
        "Given a query A and a passage B, determine whether the passage contains an answer to the query by "
        "providing a prediction of either 'Yes' or 'No'."
    )
    return [f"A: {query}", "\n", f"B: {document}", "\n", prompt]


def nemotron(query: str, document: str, _instruction: str | None) -> list[str]:
    return [f"question:{query} \n \n passage:{document}"]


def jina_v3(query: str, documents: list[str]) -> str:
    system = (
        "You are a search relevance expert who can determine a ranking of the passages based on how relevant "
        "they are to the query. If the query is a question, how relevant a passage is depends on how well it "
        "answers the question. If not, try to analyze the intent of the query and assess how well each "
        "passage satisfies the intent. If an instruction is provided, you should follow the instruction when "
        "determining the ranking."
    )
    task = (
        f"I will provide you with {len(documents)} passages, each indicated by a numerical identifier. "
        f"Rank the passages based on their relevance to query: {query}"
    )
    lines = [task]
    lines += [f'<passage id="{i}">\n{text}<|embed_token|>\n</passage>' for i, text in enumerate(documents)]
    lines += ["<query>", f"{query}<|rerank_token|>", "</query>"]
    user = "\n".join(lines)
    return (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
