"""How busy the models are, as seen by this gateway: `GET /load` on the internal port."""

import orjson

from rerank_gateway.state import State


def page(process: str, state: State) -> bytes:
    """The answer, as JSON.

    `{"process", "models": [{"namespace", "name", "replicas": [{"address", "tokensInFlight"}]}]}`. Tokens are
    estimates, of this gateway's own requests alone: the load of a model is the sum over all gateways.
    """
    return orjson.dumps(
        {
            "process": process,
            "models": [
                {
                    "namespace": model.id.namespace,
                    "name": model.id.name,
                    "replicas": [
                        {
                            "address": f"{replica.address.host}:{replica.address.port}",
                            "tokensInFlight": replica.tokens_in_flight,
                        }
                        for replica in state.replicas(model.id)
                    ],
                }
                for model in state.all_models()
            ],
        }
    )
