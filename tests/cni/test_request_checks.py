"""The CNI_… variables and stdin: what is asked for, and in which order faults are told."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import NoReturn

import pytest

from cni_ipam.cni import request as request_module
from cni_ipam.cni.request import (
    ABOUT,
    STDIN_LIMIT,
    read_request,
    read_standard_input,
    read_variable,
)
from cni_ipam.errors import CniIpamError, DecodeError, EnvironmentInvalid, InputOutputError

COMPLETE = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/var/run/netns/x",
    "CNI_IFNAME": "eth0",
    "CNI_ARGS": "IP=10.0.0.1",
    "CNI_PATH": "/opt/cni/bin",
}


def environ_of(command: str, *absent: str, **changed: str) -> dict[str, str]:
    """A complete environment for `command`, with some variables absent or changed."""
    environ = {**COMPLETE, "CNI_COMMAND": command, **changed}
    return {name: value for name, value in environ.items() if name not in absent}


def refusal_of(environ: dict[str, str]) -> CniIpamError:
    """The error for `environ`; stdin must not have been touched."""
    with pytest.raises(CniIpamError) as raised:
        read_request(environ, never_read)
    return raised.value


def never_read() -> NoReturn:
    """A stdin that must stay alone."""
    pytest.fail("stdin was read")


def test_a_complete_add_is_read() -> None:
    """Every variable fills its field, stdin the last one."""
    request = read_request(COMPLETE, lambda: b"{}")
    assert ("ADD", "c1", "/var/run/netns/x", "eth0", "IP=10.0.0.1", "/opt/cni/bin", b"{}") == (
        request.command,
        request.container_id,
        request.netns,
        request.ifname,
        request.args,
        request.path,
        request.stdin,
    )


def test_the_environment_may_be_bytes() -> None:
    """`posix.environ` is."""
    environ = {name.encode(): value.encode() for name, value in COMPLETE.items()}
    assert read_request(COMPLETE, lambda: b"") == read_request(environ, lambda: b"")


@pytest.mark.parametrize(
    ("command", "absent"),
    [
        ("ADD", "CNI_CONTAINERID"),
        ("ADD", "CNI_NETNS"),
        ("ADD", "CNI_IFNAME"),
        ("ADD", "CNI_PATH"),
        ("CHECK", "CNI_CONTAINERID"),
        ("CHECK", "CNI_NETNS"),
        ("CHECK", "CNI_IFNAME"),
        ("CHECK", "CNI_PATH"),
        ("DEL", "CNI_CONTAINERID"),
        ("DEL", "CNI_IFNAME"),
        ("DEL", "CNI_PATH"),
        ("GC", "CNI_PATH"),
        ("STATUS", "CNI_PATH"),
    ],
)
def test_a_verb_wants_its_variables(command: str, absent: str) -> None:
    """Rows cni-001 to cni-013: absent and empty are the same."""
    expected = (4, f"required env variables [{absent}] missing")
    gone = refusal_of(environ_of(command, absent))
    empty = refusal_of(environ_of(command, **{absent: ""}))
    assert expected == (gone.code, gone.msg)
    assert expected == (empty.code, empty.msg)


@pytest.mark.parametrize(
    ("command", "absent"),
    [
        ("DEL", ["CNI_NETNS"]),
        ("GC", ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"]),
        ("STATUS", ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"]),
        ("ADD", ["CNI_ARGS"]),
    ],
)
def test_a_verb_does_without_the_others(command: str, absent: list[str]) -> None:
    """A DEL may find the sandbox gone; GC and STATUS concern no container (cni-014, cni-062)."""
    assert command == read_request(environ_of(command, *absent), lambda: b"").command


@pytest.mark.parametrize("command", ["ADD", "CHECK"])
def test_missing_variables_are_told_together_in_order(command: str) -> None:
    """Rows cni-017 and cni-018."""
    error = refusal_of(environ_of(command, "CNI_PATH", "CNI_IFNAME", "CNI_NETNS"))
    assert "required env variables [CNI_NETNS,CNI_IFNAME,CNI_PATH] missing" == error.msg


def test_a_bad_value_is_told_before_missing_ones() -> None:
    """Row cni-029."""
    error = refusal_of(environ_of("ADD", "CNI_PATH", CNI_CONTAINERID="a b"))
    assert (4, "invalid characters in containerID") == (error.code, error.msg)


@pytest.mark.parametrize(
    "container_id", ["some-%%container-id", "-abc", ".abc", "_a", "../x", "a/b", "é", "a\n", "a\0"]
)
def test_a_container_id_holds_few_characters(container_id: str) -> None:
    """Rows cni-020 and cni-021; a path can't be smuggled in."""
    error = refusal_of(environ_of("ADD", CNI_CONTAINERID=container_id))
    assert (4, "invalid characters in containerID") == (error.code, error.msg)


@pytest.mark.parametrize("container_id", ["c", "0", "a_b.c-d", "x" * 300])
def test_a_container_id_may_be_long(container_id: str) -> None:
    """CNI sets no limit."""
    environ = environ_of("ADD", CNI_CONTAINERID=container_id)
    assert container_id == read_request(environ, lambda: b"").container_id


@pytest.mark.parametrize(
    ("ifname", "text"),
    [
        ("1234567890123456", "interface name is too long"),
        ("x" * 300, "interface name is too long"),
        ("éééééééé", "interface name is too long"),
        (".", "interface name is . or .."),
        ("..", "interface name is . or .."),
        ("test/test", "interface name contains / or : or whitespace characters"),
        ("test:test", "interface name contains / or : or whitespace characters"),
        ("test test", "interface name contains / or : or whitespace characters"),
        ("test\ttest", "interface name contains / or : or whitespace characters"),
        ("test\u00a0test", "interface name contains / or : or whitespace characters"),
        ("eth\udcff", "interface name is not UTF-8"),
    ],
)
def test_an_interface_name_is_one_the_kernel_takes(ifname: str, text: str) -> None:
    """Rows cni-022 to cni-028; the limit counts bytes."""
    error = refusal_of(environ_of("ADD", CNI_IFNAME=ifname))
    assert (4, text) == (error.code, error.msg)


def test_an_interface_name_may_have_15_bytes() -> None:
    """Row cni-023."""
    environ = environ_of("ADD", CNI_IFNAME="123456789012345")
    assert "123456789012345" == read_request(environ, lambda: b"").ifname


def test_gc_does_not_judge_what_it_does_not_need() -> None:
    """The library checks only the values that the verb requires."""
    environ = environ_of("GC", CNI_CONTAINERID="a b", CNI_IFNAME="a b")
    assert "GC" == read_request(environ, lambda: b"").command


@pytest.mark.parametrize("command", ["add", "NOPE", "ADD "])
def test_an_unknown_command_is_named(command: str) -> None:
    """Rows cni-031 and cni-068: verbs are upper case only."""
    error = refusal_of(environ_of(command))
    assert (4, f"unknown CNI_COMMAND: {command}") == (error.code, error.msg)


def test_without_a_command_nothing_else_is_missing() -> None:
    """The caller prints ABOUT in that case (cni-033)."""
    error = refusal_of({})
    assert "required env variables [CNI_COMMAND] missing" == error.msg


def test_about_names_the_versions() -> None:
    """The line by which people see what an executable is."""
    expected = "CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0\n"
    assert ABOUT.endswith("\n" + expected)


def test_version_leaves_stdin_alone() -> None:
    """Row cni-035: it must not wait for a pipe that nobody closes."""
    assert b"" == read_request({"CNI_COMMAND": "VERSION"}, never_read).stdin


def test_a_stdin_that_cannot_be_read_is_an_io_failure() -> None:
    """Row cni-063."""

    def read() -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(InputOutputError) as raised:
        read_request(COMPLETE, read)
    assert (5, "error reading from stdin: Input/output error") == (
        raised.value.code,
        raised.value.msg,
    )


def test_a_stdin_over_the_limit_is_refused() -> None:
    """The longest one that is taken has exactly STDIN_LIMIT bytes."""
    assert STDIN_LIMIT == len(read_request(COMPLETE, lambda: b" " * STDIN_LIMIT).stdin)
    with pytest.raises(DecodeError) as raised:
        read_request(COMPLETE, lambda: b" " * (STDIN_LIMIT + 1))
    assert "stdin is too long" in raised.value.msg


def test_an_endless_stdin_is_read_only_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory stays bounded whatever the runtime writes."""
    endless = SimpleNamespace(read=lambda _descriptor, count: b"x" * count)
    monkeypatch.setattr(request_module, "posix", endless)
    assert STDIN_LIMIT + 1 == len(read_standard_input())


def test_stdin_comes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe gives what it has; the end is an empty piece."""
    pieces = [b"{", b"}", b""]
    source = SimpleNamespace(read=lambda _descriptor, _count: pieces.pop(0))
    monkeypatch.setattr(request_module, "posix", source)
    assert b"{}" == read_standard_input()


def test_bytes_outside_utf_8_survive_in_paths() -> None:
    """A namespace's path is any bytes."""
    value = read_variable({b"CNI_NETNS": b"/run/\xff"}, "CNI_NETNS")
    assert b"/run/\xff" == value.encode("utf-8", "surrogateescape")


def test_a_container_id_outside_utf_8_is_refused() -> None:
    """It is no letter of the rule."""
    environ = {name.encode(): value.encode() for name, value in COMPLETE.items()}
    environ[b"CNI_CONTAINERID"] = b"c\xff"
    with pytest.raises(EnvironmentInvalid):
        read_request(environ, never_read)
