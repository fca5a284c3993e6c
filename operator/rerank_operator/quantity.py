"""Kubernetes quantities as numbers: 500m is 0.5, 8Gi is 8589934592."""

from decimal import Decimal

from kubernetes.utils.quantity import parse_quantity


def parse(text: str) -> Decimal:
    """The number that a quantity stands for.

    Raises:
        ValueError: it is no quantity.
    """
    return Decimal(parse_quantity(text))  # type: ignore[no-untyped-call]
