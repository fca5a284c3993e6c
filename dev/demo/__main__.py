"""The command line of `make demo`."""

import argparse
import sys
import time
from collections.abc import Sequence

from rich.console import Console

from dev.cluster.errors import ClusterError
from dev.demo import hub, install
from dev.demo.cluster import Cluster
from dev.demo.diagnosis import sections
from dev.demo.display import display, table
from dev.demo.follow import GaveUpError, follow
from dev.demo.objects import NAMESPACE, Subject, subject
from dev.demo.panda import QUERY, AnswerError, Ranked, ask, panda_first
from dev.demo.prepare import prepare
from dev.demo.rows import Row, row_of

# A gateway learns of a new key and a ready replica by its own watches, moments after kubectl does.
SETTLING_SECONDS = 15.0
SETTLING_STATUSES = {401, 403, 404, 503}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo. Return 0 when the panda text is ranked first, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument(
        "--model", metavar="ORG/NAME", help="a cross-encoder of the hub instead of the example"
    )
    chosen = subject(parser.parse_args(arguments).model)
    began = time.monotonic()
    try:
        endpoint = hub.choose()
        cluster, tag = prepare(with_demo_hub=endpoint == hub.DEMO)
    except ClusterError as error:
        return _fail(str(error))
    try:
        _install(cluster, tag, endpoint, chosen)
        _await_ready(cluster, chosen)
        ranked = _first_answer(cluster, chosen)
    except (ClusterError, GaveUpError, AnswerError) as error:
        for text in sections(cluster, chosen.model_name):
            print(f"\n{text}", file=sys.stderr)
        return _fail(str(error))
    return _report(ranked, chosen, time.monotonic() - began)


def _install(cluster: Cluster, tag: str, endpoint: str, chosen: Subject) -> None:
    install.namespace(cluster)
    if endpoint == hub.DEMO:
        _say(f"models come from a demo hub in the cluster, in the place of {hub.PUBLIC}")
        install.demo_hub(cluster, tag)
    _say(f"helm upgrade --install rerank-operator charts/rerank-operator --namespace {install.SYSTEM} --wait")
    install.chart(cluster, tag, endpoint)
    files = " -f ".join(str(path.relative_to(install.ROOT)) for path in chosen.files)
    _say(f"kubectl apply -f {files or '(a model and a key)'}")
    install.subject(cluster, chosen)


def _await_ready(cluster: Cluster, chosen: Subject) -> None:
    wanted = [f"{item['kind'].lower()}/{item['metadata']['name']}" for item in (chosen.model, chosen.key)]

    def read() -> list[Row]:
        return [row_of(item) for item in cluster.get(f"--namespace={NAMESPACE}", *wanted)["items"]]

    with display() as shown:
        follow(read, shown)


def _first_answer(cluster: Cluster, chosen: Subject) -> list[Ranked]:
    key = cluster.secret(NAMESPACE, chosen.secret_name, "key")
    deadline = time.monotonic() + SETTLING_SECONDS
    with cluster.forwarded(install.SYSTEM, "rerank-gateway") as address:
        while True:
            try:
                return ask(address, key, chosen.model_name)
            except AnswerError as error:
                if error.status not in SETTLING_STATUSES or time.monotonic() > deadline:
                    raise
                time.sleep(0.5)


def _report(ranked: list[Ranked], chosen: Subject, seconds: float) -> int:
    console = Console()
    console.print(f"\nPOST /v1/rerank, model {chosen.model_name}: “{QUERY}”", highlight=False)
    console.print(table(ranked))
    if not panda_first(ranked):
        return _fail("the panda text is not first")
    secret = f"kubectl get secret {chosen.secret_name} -o jsonpath='{{.data.key}}' | base64 -d"
    print(f"""\
The panda text is first, after {seconds:.0f} s. What next:

  eval "$(make -s cluster-env)"                       # point kubectl at this cluster
  kubectl get modeldeployment,apikey
  kubectl describe modeldeployment {chosen.model_name}
  kubectl explain modeldeployment.spec
  kubectl -n {install.SYSTEM} port-forward svc/rerank-gateway 8080:80 &
  curl http://localhost:8080/v1/models -H "Authorization: Bearer $({secret})"
  make cluster-down                                   # leave nothing behind""")
    return 0


def _say(text: str) -> None:
    print(text, flush=True)


def _fail(text: str) -> int:
    print(f"\nerror: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
