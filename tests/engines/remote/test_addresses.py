import pytest

from engines.remote.addresses import AddressForbidden, AddressRules

NEVER = [
    "169.254.169.254",  # AWS, Google, Azure, OpenStack
    "169.254.170.2",  # AWS task credentials
    "fd00:ec2::254",  # AWS over IPv6
    "fd00:ec2::23",  # AWS, credentials of pods
    "fd20:ce::254",  # Google over IPv6
    "fd00:42::42",  # Scaleway over IPv6
    "100.100.100.200",  # Alibaba
    "168.63.129.16",  # Azure
    "192.0.0.192",  # Oracle
    "fe80::1",
    "fe80::1%eth0",
    "0.0.0.0",
    "::",
    "224.0.0.1",
    "ff02::1",
    "255.255.255.255",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
]
PRIVATE = ["127.0.0.1", "::1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "fc00::1", "100.64.0.1",
           "::ffff:10.0.0.1"]  # fmt: skip
PUBLIC = ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"]


@pytest.mark.parametrize("address", NEVER)
@pytest.mark.parametrize("allow_private", [True, False])
def test_some_addresses_are_nobodys_upstream(address: str, allow_private: bool) -> None:
    with pytest.raises(AddressForbidden):
        AddressRules(allow_private=allow_private).check(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_for_policy_to_decide(address: str) -> None:
    AddressRules(allow_private=True).check(address)

    with pytest.raises(AddressForbidden, match="allow_private"):
        AddressRules(allow_private=False).check(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_fine(address: str) -> None:
    AddressRules(allow_private=False).check(address)


def test_a_network_can_be_allowed_in_spite_of_every_rule() -> None:
    rules = AddressRules(allow_private=False, allow_networks=["169.254.10.0/24", "10.0.0.0/8"])

    rules.check("169.254.10.7")
    rules.check("10.9.9.9")
    with pytest.raises(AddressForbidden):
        rules.check("169.254.169.254")
