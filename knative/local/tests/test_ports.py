"""Who listens where."""

from __future__ import annotations

import socket

import pytest

from knative.local import ports


def test_the_documented_ports_are_the_default() -> None:
    given = ports.fixed(ports.DOMAINS)
    documented = {
        "gateway": 8080,
        "broker": 8090,
        "console": 8091,
        "users": 8081,
        "orders": 8082,
        "products": 8083,
        "payments": 8084,
        "notifications": 8085,
    }
    assert {**given.http, **documented} == given.http
    assert given.grpc["payments"] == 9084


def test_new_domains_get_ports_of_their_own_and_never_the_brokers() -> None:
    names = [*ports.DOMAINS, *(f"new{n}" for n in range(8))]
    everyone = [port for port, _ in ports.fixed(names).everyone()]
    assert len(everyone) == len(set(everyone)) == 3 + 2 * len(names)


def test_free_ports_differ_from_each_other_and_can_be_had() -> None:
    given = ports.free(["a", "b"])
    assert len({port for port, _ in given.everyone()}) == 7
    ports.check(given)


def test_every_taken_port_is_named() -> None:
    given = ports.free(["a", "b"])
    with (
        socket.create_server(("127.0.0.1", given.http["a"])),
        socket.create_server(("127.0.0.1", given.grpc["b"])),
        pytest.raises(ports.PortTaken) as caught,
    ):
        ports.check(given)
    assert f"Port {given.http['a']} (a) is taken" in str(caught.value)
    assert f"Port {given.grpc['b']} (b, gRPC) is taken" in str(caught.value)
