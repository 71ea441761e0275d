"""The way to etcd, setting by setting: where each is read, and what is told where it is wrong."""

from __future__ import annotations

import pytest

from cni_ipam.cni.fields import Fields
from cni_ipam.cni.settings import parse_datastore
from cni_ipam.errors import EnvironmentInvalid, NetconfError, UnsupportedError
from cni_ipam.lean.http import Credentials, Endpoint

ONE = "https://10.0.0.1:2379"
TWO = "https://10.0.0.2:2379"
PASSWORD = "correct-horse"
KEY_PEM = "-----BEGIN PRIVATE KEY-----\nMIIEhush\n-----END PRIVATE KEY-----\n"


def etcd_of(keys=None, environ=None, *, for_removal=False):
    """What a netconf with `keys`, all beside `ipam`, and an environment say of etcd."""
    fields = Fields((("ipam.", {}), ("", {"datastore_type": "etcdv3", **(keys or {})})))
    return parse_datastore(fields, environ or {}, embedded=True, for_removal=for_removal).etcd


def refusal_of(error, keys=None, environ=None):
    """The message and the details with which they are refused."""
    with pytest.raises(error) as raised:
        etcd_of(keys, environ)
    assert error is raised.type
    return raised.value.msg, raised.value.details


# What is read, and which place wins.

SOURCES = [
    ("etcd_endpoints", "ETCD_ENDPOINTS", lambda etcd: str(etcd.endpoints[0])),
    ("etcd_ca_cert_file", "ETCD_CA_CERT_FILE", lambda etcd: etcd.credentials.ca_file),
    ("etcd_cert_file", "ETCD_CERT_FILE", lambda etcd: etcd.credentials.cert_file),
    ("etcd_key_file", "ETCD_KEY_FILE", lambda etcd: etcd.credentials.key_file),
]


@pytest.mark.parametrize(("key", "variable", "read"), SOURCES)
def test_the_netconf_beats_the_plain_variable_and_the_prefixed_one_the_netconf(key, variable, read):
    """Each key for itself."""
    conf, plain, forced = [f"https://{name}:1" for name in ("conf", "plain", "forced")]
    needed = {"etcd_endpoints": ONE, "etcd_cert_file": "/cert", "etcd_key_file": "/key"}
    others = {other: value for other, value in needed.items() if other != key}
    said = {variable: plain}
    assert plain == read(etcd_of(others, said))
    assert conf == read(etcd_of({**others, key: conf}, said))
    said["CALICO_" + variable] = forced
    assert forced == read(etcd_of({**others, key: conf}, said))


def test_the_keys_may_stand_inside_of_ipam(netconf_of):
    """Where the others of the datastore may stand, too."""
    ipam = {"type": "cni-ipam", "etcd_endpoints": ONE, "etcd_ca_cert_file": "/ca"}
    etcd = netconf_of(ipam=ipam).datastore.etcd
    assert ("/ca", ONE) == (etcd.credentials.ca_file, *map(str, etcd.endpoints))


@pytest.mark.parametrize("prefix", ["", "CALICO_"])
def test_user_and_password_are_the_environments(prefix):
    """Calico's netconf has no key for them."""
    environ = {f"{prefix}ETCD_USERNAME": "calico", f"{prefix}ETCD_PASSWORD": PASSWORD}
    etcd = etcd_of({"etcd_endpoints": ONE}, environ)
    assert ("calico", PASSWORD) == (etcd.username, etcd.password)
    keys = {"etcd_username": "calico", "etcd_password": PASSWORD, "etcd_endpoints": ONE}
    assert ("", "") == (etcd_of(keys).username, etcd_of(keys).password)


def test_a_prefixed_password_beats_a_plain_one():
    """As with every variable."""
    environ = {"ETCD_USERNAME": "u", "ETCD_PASSWORD": "old", "CALICO_ETCD_PASSWORD": "new"}
    assert "new" == etcd_of({"etcd_endpoints": ONE}, environ).password


def test_texts_of_certificates_are_the_config_files_alone():
    """Neither netconf nor environment may hold a private key."""
    keys = {"etcd_endpoints": ONE, "etcd_key": KEY_PEM, "etcd_cert": "x"}
    environ = {"ETCD_KEY": KEY_PEM, "ETCD_CERT": "x", "CALICO_ETCD_CA_CERT": "x"}
    assert Credentials() == etcd_of(keys, environ).credentials


# Endpoints.


def test_endpoints_are_a_list_with_commas():
    """In the order in which they stand."""
    expected = (Endpoint("https", "10.0.0.1", 2379), Endpoint("https", "fd00::1", 2379))
    assert expected == etcd_of({"etcd_endpoints": f"{ONE},https://[fd00::1]:2379"}).endpoints


@pytest.mark.parametrize(
    "text",
    [
        f"{ONE},{TWO},",
        f" {ONE} ,\t{TWO}\n",
        f"{ONE}/,{TWO}/",
        f",{ONE},,{TWO}",
        f"{ONE},{TWO},{ONE}/",
    ],
)
def test_blanks_empty_items_slashes_and_repeats_do_no_harm(text):
    """The endpoints are those two."""
    assert (ONE, TWO) == tuple(map(str, etcd_of({"etcd_endpoints": text}).endpoints))


@pytest.mark.parametrize(
    ("keys", "what"),
    [({}, "missing"), ({"etcd_endpoints": ""}, "missing"), ({"etcd_endpoints": " , "}, '" , "')],
)
def test_etcd_without_endpoints_is_told_in_calicos_words(keys, what):
    """With the key, and an example."""
    msg, details = refusal_of(NetconfError, keys)
    assert f'no etcd endpoints specified: "etcd_endpoints" is {what}' == msg
    assert "it must be a list such as https://10.0.0.1:2379,https://10.0.0.2:2379" == details


@pytest.mark.parametrize(
    ("item", "why"),
    [
        ("10.0.0.2:2379", "it does not begin with http:// or https://"),
        ("https://10.0.0.2", "it names no port"),
        ("https://10.0.0.2:2379/v3", "it has a path, and should end with the port"),
        ("https://fd00::2:2379", "an IPv6 address stands in brackets: http://[fd00::1]:2379"),
    ],
)
def test_an_endpoint_that_is_none_is_named_with_its_fault(item, why):
    """Its number, key and value."""
    msg, _ = refusal_of(NetconfError, {"etcd_endpoints": f"{ONE},{item}"})
    assert f'endpoint 2 of "etcd_endpoints" is "{item}": {why}' == msg


@pytest.mark.parametrize("variable", ["ETCD_ENDPOINTS", "CALICO_ETCD_ENDPOINTS"])
def test_a_wrong_variable_is_told_as_one(variable):
    """Code 4, by the variable's name."""
    msg, _ = refusal_of(EnvironmentInvalid, environ={variable: "etcd"})
    assert msg.startswith(f'endpoint 1 of {variable} is "etcd": ')


@pytest.mark.parametrize(
    "text",
    [
        f"http://root:{PASSWORD}@10.0.0.1:2379",
        f"{ONE},http://root:{PASSWORD}@10.0.0.1:2379",
        f"http://root:{PASSWORD},more@10.0.0.1:2379",
        f"root:{PASSWORD}@10.0.0.1",
        f"http://10.0.0.1:2379/{PASSWORD}@",
    ],
)
def test_an_endpoint_with_a_password_is_not_repeated(text):
    """Not even the part of it before a comma."""
    msg, details = refusal_of(NetconfError, {"etcd_endpoints": text})
    assert "is not shown, as it may hold a password: " in msg
    assert PASSWORD not in msg + details


def test_a_long_endpoint_is_shortened():
    """A message stays readable."""
    msg, _ = refusal_of(NetconfError, {"etcd_endpoints": "x" * 100_000})
    assert len(msg) < 200


def test_http_and_https_are_not_mixed():
    """What goes to one member would go in the clear to another."""
    msg, details = refusal_of(NetconfError, {"etcd_endpoints": f"{ONE},{TWO},http://10.0.0.3:1"})
    assert f'"etcd_endpoints" mixes http and https: {ONE} and http://10.0.0.3:1' == msg
    assert details.startswith("all must be https")


# Discovery.


@pytest.mark.parametrize(
    ("keys", "environ", "name"),
    [
        ({"etcd_discovery_srv": "example.org"}, {}, '"etcd_discovery_srv"'),
        ({"etcd_discovery_srv": "example.org", "etcd_endpoints": ONE}, {}, '"etcd_discovery_srv"'),
        ({}, {"ETCD_DISCOVERY_SRV": "example.org"}, "ETCD_DISCOVERY_SRV"),
        ({}, {"CALICO_ETCD_DISCOVERY_SRV": "example.org"}, "CALICO_ETCD_DISCOVERY_SRV"),
    ],
)
def test_discovery_by_srv_is_not_supported(keys, environ, name):
    """Code 2 names the key and what to use in its place."""
    msg, details = refusal_of(UnsupportedError, keys, environ)
    assert f'{name} is "example.org", which is not supported' == msg
    assert 'name the servers in "etcd_endpoints"' == details


def test_discovery_alone_chooses_etcd(netconf_of):
    """So it is told, where another datastore would be a surprise."""
    with pytest.raises(UnsupportedError):
        netconf_of(etcd_discovery_srv="example.org")


# What goes together.


@pytest.mark.parametrize(
    ("keys", "said", "missing"),
    [
        ({"etcd_cert_file": "/cert"}, "etcd_cert_file", "etcd_key_file"),
        ({"etcd_key_file": "/key"}, "etcd_key_file", "etcd_cert_file"),
    ],
)
def test_a_certificate_goes_with_its_key(keys, said, missing):
    """Whichever is missing."""
    refusal = refusal_of(NetconfError, {"etcd_endpoints": ONE, **keys})
    assert (f'"{said}" is set, but "{missing}" is not', "set both, or neither") == refusal


@pytest.mark.parametrize(
    ("said", "missing"),
    [
        ("ETCD_USERNAME", "ETCD_PASSWORD"),
        ("ETCD_PASSWORD", "ETCD_USERNAME"),
        ("CALICO_ETCD_PASSWORD", "ETCD_USERNAME"),
        ("ETCD_CERT_FILE", '"etcd_key_file"'),
    ],
)
def test_half_a_pair_of_variables_is_told_without_its_value(said, missing):
    """Calico would ignore half a user in silence."""
    msg, details = refusal_of(EnvironmentInvalid, {"etcd_endpoints": ONE}, {said: PASSWORD})
    assert f"{said} is set, but {missing} is not" == msg
    assert PASSWORD not in msg + details


@pytest.mark.parametrize("key", ["etcd_key_file", "etcd_cert_file", "etcd_ca_cert_file"])
def test_a_text_where_a_path_belongs_is_told_but_not_shown(key):
    """It may be the private key."""
    msg, details = refusal_of(NetconfError, {"etcd_endpoints": ONE, key: KEY_PEM})
    assert f'"{key}" holds a PEM text, but must be the path of a file' == msg
    assert "hush" not in msg + details


def test_the_authority_alone_is_enough():
    """Many servers ask for no certificate."""
    etcd = etcd_of({"etcd_endpoints": ONE, "etcd_ca_cert_file": "/ca"})
    assert Credentials(ca_file="/ca") == etcd.credentials


# Removals.


def test_a_removal_does_without_half_a_pair():
    """The server decides whether it minds."""
    keys = {"etcd_endpoints": ONE, "etcd_cert_file": "/cert", "etcd_ca_cert_file": "/ca"}
    etcd = etcd_of(keys, {"ETCD_USERNAME": "calico"}, for_removal=True)
    assert Credentials(ca_file="/ca") == etcd.credentials
    assert ("", "") == (etcd.username, etcd.password)


def test_a_removal_needs_no_discovery_where_endpoints_are_named():
    """But without them it cannot reach anything."""
    keys = {"etcd_discovery_srv": "example.org"}
    etcd = etcd_of({**keys, "etcd_endpoints": ONE}, for_removal=True)
    assert [ONE] == [str(endpoint) for endpoint in etcd.endpoints]
    with pytest.raises(UnsupportedError):
        etcd_of(keys, for_removal=True)


@pytest.mark.parametrize("text", ["", "etcd", f"{ONE},http://10.0.0.2:2379"])
def test_a_removal_needs_endpoints_too(text):
    """Nobody could say where the address was."""
    with pytest.raises(NetconfError, match="etcd_endpoints"):
        etcd_of({"etcd_endpoints": text}, for_removal=True)


def test_a_trace_does_not_show_secrets():
    """As settings print themselves."""
    environ = {"ETCD_USERNAME": "calico", "ETCD_PASSWORD": PASSWORD}
    text = repr(etcd_of({"etcd_endpoints": ONE}, environ))
    assert ONE in text
    assert PASSWORD not in text
