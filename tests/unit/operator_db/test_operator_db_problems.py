# Copyright: (c) 2026, Fediversity hosting contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a refused operators.yml says: line, field, what is wrong, what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.fediversity.hosting.plugins.module_utils.errors import InvalidInput
from ansible_collections.fediversity.hosting.plugins.plugin_utils.catalogue import Application
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.database import connect, exists
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.importer import (
    import_operators,
    preview_import,
)
from ansible_collections.fediversity.hosting.plugins.plugin_utils.operator_db.queries import (
    load_fleet,
    record_deployment,
)

GOOD = """
version: 1
environments:
  - name: lab
    stage: staging
    zones: [fedi.test]
    network: {subnet: 10.99.0.0/16, gateway: 10.99.0.1, nameservers: [10.99.0.11], pool: 10.99.1.10-10.99.1.11}
    proxmox: {node: pve1, storage: local, image: image, bridge: vmbr0}
    postgresql: {host: 10.99.0.10, port: 5432}
    garage: {s3_endpoint: "http://10.99.0.1:3900", region: garage}
  - name: bare
    stage: production
    zones: [bare.test]
    network: {subnet: 10.98.0.0/16, gateway: 10.98.0.1, nameservers: [10.98.0.11]}
machines:
  - {name: vm-1, environment: lab, runtime: proxmox, cores: 2, memory: 2048, disk: 20}
  - {name: vm-2, environment: lab, runtime: proxmox, cores: 2, memory: 2048, disk: 20}
  - {name: bare-1, environment: bare, runtime: existing, address: 10.98.0.20}
operators:
  - name: alice
    display_name: Alice
    contact: alice@example.org
    deployments:
      - name: social
        environment: lab
        applications:
          - application: mastodon
            machine: vm-1
            domain: alice.fedi.test
            settings: {title: Alice}
  - name: bob
    display_name: Bob
    contact: bob@example.org
    deployments:
      - name: videos
        environment: lab
        applications:
          - application: peertube
            machine: vm-2
            domain: bob.fedi.test
""".lstrip()

ALICE = "operators[0].deployments[0].applications[0]"
BOB = "operators[1].deployments[0].applications[0]"

# what is replaced in GOOD, by what, and the one line that has to come out (without the leading "operators.yml:")
CASES = {
    "unknown application": (
        "application: peertube",
        "application: friendica",
        f"37: {BOB}.application: unknown application 'friendica'; known are: mastodon, peertube, pixelfed",
    ),
    "two operators claim one domain": (
        "domain: bob.fedi.test",
        "domain: alice.fedi.test",
        f"39: {BOB}.domain: 'alice.fedi.test' is already claimed by operator 'alice' (line 28); "
        "choose another domain for one",
    ),
    "domain outside of the zones": (
        "domain: bob.fedi.test",
        "domain: bob.example.org",
        f"39: {BOB}.domain: 'bob.example.org' is in no zone of the environment 'lab' (fedi.test)",
    ),
    "domain that only ends like a zone": (
        "domain: bob.fedi.test",
        "domain: bobfedi.test",
        f"39: {BOB}.domain: 'bobfedi.test' is in no zone of the environment 'lab' (fedi.test)",
    ),
    "domain in capitals": (
        "domain: bob.fedi.test",
        "domain: Bob.fedi.test",
        f"39: {BOB}.domain: 'Bob.fedi.test' is not a domain name in lower case without a final dot "
        "(international names in their xn-- form)",
    ),
    "domain with a line end": (
        "domain: bob.fedi.test",
        'domain: "bob.fedi.test\\n"',
        f"39: {BOB}.domain: 'bob.fedi.test\\n' is not a domain name in lower case without a final dot "
        "(international names in their xn-- form)",
    ),
    "setting of another type": (
        "settings: {title: Alice}",
        "settings: {title: 5}",
        f"29: {ALICE}.settings.title: 5 is not of type string",
    ),
    "setting that the application does not have": (
        "settings: {title: Alice}",
        "settings: {titel: Alice}",
        f"29: {ALICE}.settings.titel: unknown field; "
        "known here: description, language, media_retention_days, registrations, title",
    ),
    "setting that is not offered": (
        "settings: {title: Alice}",
        "settings: {registrations: maybe}",
        f"29: {ALICE}.settings.registrations: 'maybe' is not one of: open, approval, closed",
    ),
    "setting that is too long": (
        "settings: {title: Alice}",
        f"settings: {{title: {'x' * 201}}}",
        f"29: {ALICE}.settings.title: is longer than 200 characters (201)",
    ),
    "unknown machine": (
        "machine: vm-2",
        "machine: vm-9",
        f"38: {BOB}.machine: unknown machine 'vm-9'; declare it under machines",
    ),
    "machine of another environment": (
        "machine: vm-2",
        "machine: bare-1",
        f"38: {BOB}.machine: machine 'bare-1' is in the environment 'bare', the deployment in 'lab'; "
        "choose a machine of that environment",
    ),
    "unknown environment of a machine": (
        "{name: bare-1, environment: bare,",
        "{name: bare-1, environment: moon,",
        "17: machines[2].environment: unknown environment 'moon'; known are: bare, lab",
    ),
    "unknown environment of a deployment": (
        "      - name: videos\n        environment: lab",
        "      - name: videos\n        environment: moon",
        "35: operators[1].deployments[0].environment: unknown environment 'moon'; known are: bare, lab",
    ),
    "one application twice on a machine": (
        "application: peertube\n            machine: vm-2",
        "application: mastodon\n            machine: vm-1",
        f"38: {BOB}.machine: 'vm-1' already runs the mastodon of operator 'alice' (line 27); "
        "one machine runs an application only once",
    ),
    "two operators of one name": (
        "- name: bob",
        "- name: alice",
        "30: operators[1].name: 'alice' is given twice (line 19); remove or rename one of them",
    ),
    "two machines of one name": (
        "{name: bare-1, environment: bare, runtime: existing, address: 10.98.0.20}",
        "{name: vm-1, environment: lab, runtime: existing, address: 10.99.0.20}",
        "17: machines[2].name: 'vm-1' is given twice (line 15); remove or rename one of them",
    ),
    "address outside of the subnet": (
        "address: 10.98.0.20",
        "address: 10.97.0.20",
        "17: machines[2].address: 10.97.0.20 is outside of the subnet 10.98.0.0/16 of 'bare'",
    ),
    "address of the gateway": (
        "address: 10.98.0.20",
        "address: 10.98.0.1",
        "17: machines[2].address: 10.98.0.1 is the gateway of 'bare'",
    ),
    "no address": (
        "address: 10.98.0.20",
        "address: ten",
        "17: machines[2].address: 'ten' does not appear to be an IPv4 or IPv6 address",
    ),
    "existing machine without an address": (
        ", address: 10.98.0.20",
        "",
        "17: machines[2]: an existing machine needs its address",
    ),
    "virtual machine without a size": (
        "{name: vm-2, environment: lab, runtime: proxmox, cores: 2, memory: 2048, disk: 20}",
        "{name: vm-2, environment: lab, runtime: proxmox, cores: 2}",
        "16: machines[1]: a machine with the runtime proxmox needs memory, disk",
    ),
    "virtual machine where there is no Proxmox": (
        "runtime: existing, address: 10.98.0.20",
        "runtime: proxmox, cores: 1, memory: 512, disk: 5, address: 10.98.0.20",
        "17: machines[2].runtime: the environment 'bare' has no proxmox; add it there",
    ),
    "one node and several": (
        "{node: pve1, storage",
        "{node: pve1, nodes: [pve1], storage",
        "7: environments[0].proxmox.nodes: node and nodes exclude each other; give one of them",
    ),
    "application whose backend is not there": (
        '    garage: {s3_endpoint: "http://10.99.0.1:3900", region: garage}\n',
        "    # no Garage here\n",
        f"26: {ALICE}.application: mastodon needs garage, which its environment has not; add it there\n"
        f"  operators.yml:37: {BOB}.application: peertube needs garage, which its environment has not; add it there",
    ),
    "exhausted pool": (
        "pool: 10.99.1.10-10.99.1.11",
        "pool: 10.99.1.10-10.99.1.10",
        "16: machines[1]: the pool 10.99.1.10-10.99.1.10 of 'lab' has no free address; "
        "give the machine an address or enlarge the pool",
    ),
    "pool outside of the subnet": (
        "pool: 10.99.1.10-10.99.1.11",
        "pool: 10.97.1.10-10.97.1.11",
        "6: environments[0].network.pool: 10.97.1.10-10.97.1.11 is not inside of the subnet 10.99.0.0/16",
    ),
    "pool that falls": (
        "pool: 10.99.1.10-10.99.1.11",
        "pool: 10.99.1.11-10.99.1.10",
        "6: environments[0].network.pool: '10.99.1.11-10.99.1.10' does not rise from a first to a last address",
    ),
    "host name of Ansible's own": (
        "{name: bare-1,",
        "{name: all,",
        "17: machines[2].name: 'all' is a name of Ansible's own; choose another one",
    ),
    "hostile host name": (
        "{name: bare-1,",
        "{name: \"{{ lookup('pipe', 'id') }}\",",
        "17: machines[2].name: \"{{ lookup('pipe', 'id') }}\" is not a name of 1 to 63 lower-case letters, digits "
        "and single hyphens between them",
    ),
    "operator's name with a path": (
        "- name: bob",
        "- name: ../bob",
        "30: operators[1].name: '../bob' is not a name of 1 to 32 lower-case letters, digits "
        "and single hyphens between them",
    ),
    "unknown field": (
        "contact: bob@example.org",
        "contact: bob@example.org\n    ansible_ssh_common_args: -o ProxyCommand=id",
        "33: operators[1].ansible_ssh_common_args: unknown field; known here: contact, deployments, display_name, name",
    ),
    "missing field": (
        "    contact: bob@example.org\n",
        "",
        "30: operators[1]: 'contact' is missing",
    ),
    "version without quotes": (
        "      - name: videos\n",
        "      - name: videos\n        module_version: 1\n",
        "35: operators[1].deployments[0].module_version: 1 is not of type string",
    ),
    "field given twice": (
        "    contact: bob@example.org\n",
        "    contact: bob@example.org\n    contact: b@example.org\n",
        "33: operators[1].contact: given twice (line 32)",
    ),
    "syntax error": (
        "    contact: bob@example.org\n",
        "    contact: [bob@example.org\n",
        "33: no YAML: expected ',' or ']', but got ':'",
    ),
    "Python object": (
        "display_name: Bob",
        "display_name: !!python/name:os.system x",
        "31: operators[1].display_name: the tag tag:yaml.org,2002:python/name:os.system is not supported",
    ),
    "vault value": (
        "display_name: Bob",
        "display_name: !vault x",
        "31: operators[1].display_name: the tag !vault is not supported",
    ),
    "alias loop": (
        "settings: {title: Alice}",
        "nixos_options: &loop {again: *loop}",
        f"29: {ALICE}.nixos_options.again: the alias contains itself",
    ),
    "NUL": (
        "display_name: Bob",
        'display_name: "B\\0b"',
        "31: operators[1].display_name: the text has a control character, or one that is no character; remove it",
    ),
    "terminal escape": (
        "contact: bob@example.org",
        'contact: "\\e[2Jbob@example.org"',
        "32: operators[1].contact: the text has a control character, or one that is no character; remove it",
    ),
    "noncharacter": (
        "settings: {title: Alice}",
        'settings: {title: "A\\uFFFF"}',
        f"29: {ALICE}.settings.title: the text has a control character, or one that is no character; remove it",
    ),
    "control character in a field name": (
        "settings: {title: Alice}",
        'nixos_options: {"a\\0": 1}',
        f"29: {ALICE}.nixos_options: the field name 'a\\x00' has a control character, or one that is no character; "
        "remove it",
    ),
    "integer with a point": (
        "settings: {title: Alice}",
        "settings: {media_retention_days: 5.0}",
        f"29: {ALICE}.settings.media_retention_days: 5.0 is not of type integer",
    ),
    "operator with PostgreSQL's own prefix": (
        "- name: alice",
        "- name: pg",
        "19: operators[0].name: 'pg' begins names that PostgreSQL reserves; choose another one",
    ),
    "no number": (
        "settings: {title: Alice}",
        "nixos_options: {load: .nan}",
        f"29: {ALICE}.nixos_options.load: '.nan' is no number that can be stored",
    ),
    "number as a field name": (
        "settings: {title: Alice}",
        "nixos_options: {1: x}",
        f"29: {ALICE}.nixos_options: a field name must be plain text (quote it)",
    ),
    "another document": ("version: 1\n", "version: 2\n", "1: version: 1 was expected"),
}


@pytest.fixture
def refusal(
    operators: Callable[[str], Path], sqlite_url: str, catalogue: dict[str, Application]
) -> Callable[[str], list[str]]:
    """Import the text into a new database and return the lines of the message."""

    def run(text: str) -> list[str]:
        engine = connect(sqlite_url)
        path = operators(text)
        with pytest.raises(InvalidInput) as previewed:
            preview_import(engine, path, catalogue)
        with pytest.raises(InvalidInput) as imported:
            import_operators(engine, path, catalogue)
        assert str(previewed.value) == str(imported.value)
        assert not exists(engine)
        return str(imported.value).splitlines()

    return run


@pytest.mark.parametrize(("before", "after", "expected"), CASES.values(), ids=CASES)
def test_a_problem_is_one_clear_line(
    refusal: Callable[[str], list[str]], before: str, after: str, expected: str
) -> None:
    assert GOOD.count(before) == 1
    first, *problems = refusal(GOOD.replace(before, after))
    assert first.startswith(f"operators.yml was not imported, it has {len(problems)} problem")
    assert "\n".join(problems) == f"  operators.yml:{expected}"


def test_the_text_without_a_problem_is_imported(
    operators: Callable[[str], Path], sqlite_url: str, catalogue: dict[str, Application]
) -> None:
    assert import_operators(connect(sqlite_url), operators(GOOD), catalogue).counts["created"] == 11


def test_all_problems_come_at_once_and_in_order(refusal: Callable[[str], list[str]]) -> None:
    text = (
        GOOD.replace("contact: alice@example.org", "contact: nowhere")
        .replace("address: 10.98.0.20", "address: 10.97.0.20")
        .replace("settings: {title: Alice}", "settings: {title: 5, x: 1}")
        .replace("application: peertube", "application: friendica")
    )
    assert refusal(text) == [
        "operators.yml was not imported, it has 5 problems:",
        "  operators.yml:17: machines[2].address: 10.97.0.20 is outside of the subnet 10.98.0.0/16 of 'bare'",
        "  operators.yml:21: operators[0].contact: 'nowhere' is not a mail address",
        f"  operators.yml:29: {ALICE}.settings.title: 5 is not of type string",
        f"  operators.yml:29: {ALICE}.settings.x: unknown field; "
        "known here: description, language, media_retention_days, registrations, title",
        f"  operators.yml:37: {BOB}.application: unknown application 'friendica'; "
        "known are: mastodon, peertube, pixelfed",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1: the document is empty"),
        ("- 1", "1: document: [1] is not of type object"),
        ("version: 1\noperators: 5", "2: operators: 5 is not of type array"),
        ("version: 1\nmachines: [5]", "2: machines[0]: 5 is not of type object"),
        ("version: 1\n--- \nversion: 1", "2: no YAML: but found another document"),
        ("version: !!bool maybe", "1: no YAML: 'maybe'"),
        (f"version: {'[' * 3000}{']' * 3000}", "1: the document is nested too deeply"),
        (
            "version: '\a'",
            "1: no YAML: unacceptable character #x0007: special characters are not allowed "
            'in "<unicode string>", position 10',
        ),
    ],
)
def test_other_documents_are_refused(refusal: Callable[[str], list[str]], text: str, expected: str) -> None:
    assert refusal(text) == ["operators.yml was not imported, it has 1 problem:", f"  operators.yml:{expected}"]


def test_a_file_that_is_not_there_is_named(sqlite_url: str, catalogue: dict[str, Application], tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        import_operators(connect(sqlite_url), tmp_path / "absent.yml", catalogue)
    assert str(caught.value) == f"{tmp_path}/absent.yml: cannot be read: No such file or directory"


def test_unlisted_rows_keep_what_they_claimed(
    operators: Callable[[str], Path],
    refusal: Callable[[str], list[str]],
    sqlite_url: str,
    catalogue: dict[str, Application],
) -> None:
    engine = connect(sqlite_url)
    import_operators(engine, operators(GOOD), catalogue)
    before = load_fleet(engine)
    others = """
version: 1
machines:
  - {name: vm-3, environment: lab, runtime: existing, address: 10.99.1.10}
operators:
  - name: carol
    display_name: Carol
    contact: carol@example.org
    deployments:
      - name: videos
        environment: lab
        applications:
          - {application: peertube, machine: vm-2, domain: bob.fedi.test}
"""
    with pytest.raises(InvalidInput) as caught:
        import_operators(engine, operators(others), catalogue)
    place = "operators[0].deployments[0].applications[0]"
    assert str(caught.value).splitlines() == [
        "operators.yml was not imported, it has 3 problems:",
        "  operators.yml:3: machines[0].address: 10.99.1.10 is already the address of machine 'vm-1' in the database; "
        "choose another one",
        f"  operators.yml:12: {place}.domain: 'bob.fedi.test' is already claimed by operator 'bob' (unlisted); "
        "choose another domain for one",
        f"  operators.yml:12: {place}.machine: 'vm-2' already runs the peertube of operator 'bob' (unlisted); "
        "one machine runs an application only once",
    ]
    assert load_fleet(engine) == before


def test_an_immutable_field_can_change_until_the_first_run(
    operators: Callable[[str], Path], sqlite_url: str, catalogue: dict[str, Application]
) -> None:
    engine = connect(sqlite_url)
    import_operators(engine, operators(GOOD), catalogue)
    moved = GOOD.replace("alice.fedi.test", "alison.fedi.test")
    assert import_operators(engine, operators(moved), catalogue).changed
    record_deployment(engine, "alice", "social", state="running")
    with pytest.raises(InvalidInput) as caught:
        import_operators(engine, operators(GOOD), catalogue)
    assert str(caught.value).splitlines()[1] == (
        f"  operators.yml:28: {ALICE}.domain: Mastodon cannot change its domain from 'alison.fedi.test' to "
        "'alice.fedi.test'; put the old value back, or make a new deployment"
    )
