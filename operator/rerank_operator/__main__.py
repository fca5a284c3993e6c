"""`python -m rerank_operator`: the same program as `rerank-operator`."""

from rerank_operator.main import main

if __name__ == "__main__":
    main()
