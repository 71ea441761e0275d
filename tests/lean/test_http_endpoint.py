"""Endpoints: which URLs are taken, and what is said of all others."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_ipam.lean.http import Endpoint, parse_endpoint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://10.0.0.1:2379", Endpoint("http", "10.0.0.1", 2379)),
        (
            "https://etcd-0.etcd_peers.example.org:1",
            Endpoint("https", "etcd-0.etcd_peers.example.org", 1),
        ),
        ("https://etcd.example.org.:2379", Endpoint("https", "etcd.example.org.", 2379)),
        ("http://etcd:65535", Endpoint("http", "etcd", 65535)),
        ("http://[fd00::1]:2379", Endpoint("http", "fd00::1", 2379)),
        ("http://[::ffff:10.0.0.1]:2379", Endpoint("http", "::ffff:10.0.0.1", 2379)),
        ("http://[fe80::1%25eth0]:2379", Endpoint("http", "fe80::1%eth0", 2379)),
        ("http://[fe80::1%eth0]:2379", Endpoint("http", "fe80::1%eth0", 2379)),
        ("HTTPS://10.0.0.1:2379", Endpoint("https", "10.0.0.1", 2379)),
        ("http://10.0.0.1:2379/", Endpoint("http", "10.0.0.1", 2379)),
        ("http://10.0.0.1:02379", Endpoint("http", "10.0.0.1", 2379)),
    ],
)
def test_a_url_of_scheme_host_and_port_is_an_endpoint(text, expected):
    """A last slash is no path; IPv6 loses its brackets."""
    assert expected == parse_endpoint(text)


NO_SCHEME = "it does not begin with http:// or https://"
PATH = "it has a path, and should end with the port"
NO_PORT = "it names no port"
NO_HOST = "it names no host: neither a name nor an address"
BAD_PORT = "its port is not a number from 1 to 65535"
BARE_IPV6 = "an IPv6 address stands in brackets: http://[fd00::1]:2379"
NO_IPV6 = "there is no IPv6 address in its brackets"
USER = "it holds a user; etcd's user and password have settings of their own"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", NO_SCHEME),
        ("10.0.0.1:2379", NO_SCHEME),
        ("unix:///run/etcd.sock", NO_SCHEME),
        ("http:/10.0.0.1:2379", NO_SCHEME),
        ("//10.0.0.1:2379", NO_SCHEME),
        ("http://10.0.0.1:2379/v3", PATH),
        ("http://10.0.0.1:2379//", PATH),
        ("http://10.0.0.1:2379?x=1", PATH),
        ("http://10.0.0.1:2379#x", PATH),
        ("http://root:hush@10.0.0.1:2379", USER),
        ("http://@10.0.0.1:2379", USER),
        ("http://", NO_PORT),
        ("http://10.0.0.1", NO_PORT),
        ("http://[fd00::1]", NO_PORT),
        ("http://[fd00::1:2379", NO_PORT),
        ("http://fd00::1:2379", BARE_IPV6),
        ("http://::1", BARE_IPV6),
        ("http://[10.0.0.1]:2379", NO_IPV6),
        ("http://[]:2379", NO_IPV6),
        ("http://[fd00::1\0]:2379", NO_IPV6),
        ("http://[fe80::1%]:2379", NO_IPV6),
        ("http://[fe80::1%a\r\nX-Y: z]:2379", NO_IPV6),
        ("http://[\udcff]:2379", NO_IPV6),
        ("http://:2379", NO_HOST),
        ("http://.:2379", NO_HOST),
        ("http://etcd..example:2379", NO_HOST),
        (f"http://{'x' * 64}.example:2379", NO_HOST),
        ("http://two words:2379", NO_HOST),
        ("http://${ETCD_IP}:2379", NO_HOST),
        ("http://\u0435tcd:2379", NO_HOST),
        ("http://*:2379", NO_HOST),
        ("http://fd00]:2379", NO_PORT),
        ("http://10.0.0.1:", BAD_PORT),
        ("http://10.0.0.1:0", BAD_PORT),
        ("http://10.0.0.1:65536", BAD_PORT),
        ("http://10.0.0.1:-1", BAD_PORT),
        ("http://10.0.0.1:+80", BAD_PORT),
        ("http://10.0.0.1:2379 ", BAD_PORT),
        ("http://10.0.0.1:client", BAD_PORT),
        ("http://10.0.0.1:\u0662\u0663\u0667\u0669", BAD_PORT),
        ("http://10.0.0.1:00000999999", BAD_PORT),
        (f"http://10.0.0.1:{'0' * 5000}1", BAD_PORT),
    ],
)
def test_anything_else_is_refused_with_its_fault(text, why):
    """The first that counts."""
    with pytest.raises(ValueError, match=f"^{re.escape(why)}$"):
        parse_endpoint(text)


@pytest.mark.parametrize("url", ["https://10.0.0.1:2379", "http://[fd00::1]:2379", "http://etcd:1"])
def test_an_endpoint_prints_as_its_url(url):
    """With brackets where they belong."""
    assert url == str(parse_endpoint(url))


PIECES = [
    "http",
    "https",
    "://",
    ":",
    "/",
    "[",
    "]",
    "%25",
    "@",
    ".",
    "fd00::1",
    "10.0.0.1",
    "2379",
]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3)).map("".join))
def test_any_text_is_an_endpoint_or_refused(text):
    """Nothing else comes out, and what is taken says the same when it is read again."""
    try:
        endpoint = parse_endpoint(text)
    except ValueError:
        return
    assert endpoint == parse_endpoint(str(endpoint))
