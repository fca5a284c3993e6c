from rerank_gateway.main import main

main()
