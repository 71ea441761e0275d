"""The contract of every datastore, on real etcd; and what only etcd can do to a client."""

from __future__ import annotations

import pytest

from cni_ipam.datastore.etcd import EtcdDatastore
from cni_ipam.lean.http import parse_endpoint
from tests.datastore.contract import DatastoreContract


class TestContract(DatastoreContract):
    """The contract, on each version."""

    @pytest.fixture
    def open_store(self, etcd):
        opened = []

        def open_store():
            opened.append(EtcdDatastore([parse_endpoint(url) for url in etcd.endpoints]))
            return opened[-1]

        yield open_store
        for store in opened:
            store.close()
